"""Plants faults in a copy of the source, one after the other, and expects the oracle to find each within 10,000 operations.

A fault is a text that stands once in a file, and what stands there instead.
"""

import os
import pathlib
import shutil
import subprocess
import sys

FAULTS = [
    ("pages by number are not outdated by name", "src/cutoff.rs",
     "let is_by_number = subject.is_nameless();",
     "let is_by_number = false;"),
    ("invalidations are not written", "src/stack/invalid.rs",
     "        self.write_cutoffs()?;\n        super::tally",
     "        super::tally"),
    ("a later page stays fresh behind a new one", "src/cache/passes.rs",
     "if is_later_page(request) { cutoff.not_before(self.passes.since(key)) } else { cutoff }",
     "{ let _ = (request, key); cutoff }"),
    ("a 304 without its tag is believed", "src/policy.rs",
     "None => entry.parts == *parts && has_the_validator(),",
     "None => { let _ = has_the_validator; entry.parts == *parts }"),
    ("a part is stored in place of the whole", "src/policy.rs",
     'any(|value| value.contains("partial-results"))',
     'any(|value| value.contains("of the whole"))'),
    ("a cache in the middle is believed", "src/policy/elsewhere.rs",
     "    age_secs > 0 && cutoff",
     "    age_secs > 1 << 40 && cutoff"),
    ("a walk ends before a page that came behind", "src/cache/pages.rs",
     "if confirmed { request_behind(request, &page.entry) } else { None }",
     "if confirmed { None } else { None }"),
    ("a 304 proves Link", "src/cache/fetch.rs",
     "self.settle_link(request, *entry, ask, confirmed, &mut spent).await;",
     "(*entry, LinkProof::Holds);"),
    ("a change is outdated by nobody", "src/cache/own.rs",
     "        if cutoffs.is_empty() {\n            return;",
     "        if cutoffs.len() < 1_000 {\n            return;"),
    ("a body that is no JSON is stored", "src/github.rs",
     "if let Some(fault) = content::json_fault(request, &reply) {",
     "if let Some(fault) = content::json_fault(request, &reply).filter(|_| false) {"),
    ("tokens share a partition", "src/partition.rs",
     'Self(format!("token:{}", token.digest()))',
     'Self(format!("token:{}", token.digest().len()))'),
    ("a suspicion hides a change", "src/cutoff.rs",
     "let is_joined = is_same(old) && is_ahead(old) == is_ahead(&cutoff);",
     "let is_joined = is_same(old); let _ = is_ahead;"),
    ("invalidations do not reach other names", "src/cutoff.rs",
     "let twins = self.scope.twins(aliases).into_iter();",
     "let twins = self.scope.twins(aliases).into_iter().take(0);"),
    ("a stale answer says nothing", "src/serve/respond.rs",
     'format!("octocache; hit; ttl={}; detail={}", left.min(-1), stale_detail(reason)),',
     '{ let _ = stale_detail(reason); format!("octocache; hit; ttl={left}") }'),
    ("answers are fresh for twice as long", "src/policy.rs",
     "        _ if lifetime.is_set => lifetime.fresh_secs,\n        404",
     "        200 => lifetime.fresh_secs * 2,\n        404"),
    ("a bundle's invalidations are not read", "src/stack/invalid.rs",
     "brought.merge(&bundle.cutoffs()?.of_bundle(now, newest(&bundle)), now);",
     "let _ = (bundle.cutoffs()?, newest(&bundle));"),
    ("a prediction is believed whatever the 304 says", "src/policy.rs",
     "        Some(confirmed) => confirmed,\n",
     "        Some(_) => true,\n"),
]

ROOT = pathlib.Path(__file__).resolve().parents[2]
COPY = ROOT / "target" / "prove"
FILES = ["Cargo.toml", "Cargo.lock", "README.md", "clippy.toml", "action.yml"]
SEEDS = 100  # of 100 operations


def mirror(source, target):
    """Makes a file or folder what another is; what is so already keeps its time, and is not built again."""
    if source.is_file():
        if not target.is_file() or source.read_bytes() != target.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    elif source.is_dir():
        names = {child.name for child in source.iterdir()} - {"target", "node_modules"}
        if target.is_dir():
            for gone in {child.name for child in target.iterdir()} - names:
                shutil.rmtree(target / gone, ignore_errors=True)
                (target / gone).unlink(missing_ok=True)
        for name in names:
            mirror(source / name, target / name)


def source(path, text):
    """A copy of what is built, of its tests the oracle alone, and one file with another text."""
    # Its target directory is its own: cargo takes both trees for one package.
    for name in ["src", "tests/oracle", "tests/it", "benches", "examples", "docs", *FILES]:
        if name != path:
            mirror(ROOT / name, COPY / name)
    for file in (COPY / path, COPY / "tests" / "it.rs"):
        file.parent.mkdir(parents=True, exist_ok=True)
    head = (ROOT / "tests" / "it.rs").read_text().split("mod harness;")[0]
    (COPY / "tests" / "it.rs").write_text(head + '#[path = "it/oracle.rs"]\nmod oracle;\n')
    (COPY / path).write_text(text)


def found():
    """Runs the oracle on the copy; what it says of the fault, or None."""
    environment = dict(os.environ, CARGO_TARGET_DIR=str(COPY / "target"), CARGO_INCREMENTAL="1",
                       CARGO_PROFILE_DEV_DEBUG="0", ORACLE_SEEDS=str(SEEDS), ORACLE_SEED="1", RUSTFLAGS=os.environ.get("RUSTFLAGS", ""))
    build = subprocess.run(["cargo", "test", "--locked", "--test", "it", "--no-run"], cwd=COPY, env=environment, capture_output=True, text=True)
    if build.returncode:
        sys.exit(f"the planted fault does not build:\n{build.stderr[-3000:]}")
    run = subprocess.run(["cargo", "test", "--locked", "--test", "it", "--", "oracle::no_sequence"], cwd=COPY, env=environment, capture_output=True, text=True)
    said = [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("seed ")]
    return said[0][:160] if run.returncode and said else None


def main():
    many = int(sys.argv[1]) if len(sys.argv) > 1 else len(FAULTS)
    missed = []
    for what, path, before, after in FAULTS[:many]:
        text = (ROOT / path).read_text()
        if text.count(before) != 1:
            sys.exit(f"{path} does not hold the text of `{what}` once")
        source(path, text.replace(before, after))
        said = found()
        print(f"{'found ' if said else 'MISSED'}  {what}\n        {said or ''}", flush=True)
        if not said:
            missed.append(what)
    print(f"{min(many, len(FAULTS)) - len(missed)} of {min(many, len(FAULTS))} faults found")
    sys.exit(1 if missed else 0)


main()
