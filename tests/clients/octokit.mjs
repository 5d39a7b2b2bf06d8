// What a script with octokit.js sees at a base address; prints JSON.
//   node octokit.mjs BASE_URL TOKEN
import { createRequire } from "node:module";

const { Octokit } = createRequire(process.env.NODE_PACKAGES + "/")("@octokit/rest");
const [baseUrl, auth] = process.argv.slice(2);
const octokit = new Octokit({ baseUrl, auth });
const at = { owner: "acme", repo: "repo-0005" };

const issues = await octokit.paginate(octokit.rest.issues.listForRepo, { ...at, per_page: 50 });
const repository = (await octokit.rest.repos.get(at)).data;
const languages = (await octokit.rest.repos.listLanguages(at)).data;
const releases = (await octokit.rest.repos.listReleases({ owner: "acme", repo: "repo-0004" })).data;
const viewer = await octokit.graphql("query Q { viewer { login } }");
const missing = await octokit.rest.repos.get({ owner: "acme", repo: "none" }).catch((error) => error.status);
console.log(JSON.stringify({ issues: issues.map((issue) => issue.number), repository, languages, releases, viewer, missing }));
