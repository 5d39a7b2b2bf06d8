"""What a script with PyGithub sees at a base address; prints JSON.

python pygithub.py BASE_URL TOKEN
"""
import json
import sys

from github import Auth, Github, UnknownObjectException

base_url, token = sys.argv[1:]
github = Github(base_url=base_url, auth=Auth.Token(token), per_page=50, retry=None)
repository = github.get_repo("acme/repo-0005")
seen = {
    "name": repository.full_name,
    "stars": repository.stargazers_count,
    "issues": [issue.number for issue in repository.get_issues()],
    # PyGithub adds the address that it asked.
    "languages": {name: size for name, size in repository.get_languages().items() if name != "url"},
    "owner": repository.owner.login,
    "user": github.get_user("octocat").name,
    "repositories": [one.full_name for one in github.get_organization("acme").get_repos()],
}
try:
    github.get_repo("acme/none")
except UnknownObjectException as error:
    seen["missing"] = error.status
print(json.dumps(seen))
