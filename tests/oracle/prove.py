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
     "all.merge(&bundle.cutoffs()?.of_bundle(now, newest(&bundle)), now);",
     "let _ = (bundle.cutoffs()?, newest(&bundle));"),
    ("a prediction is believed whatever the 304 says", "src/policy.rs",
     "        Some(confirmed) => confirmed,\n",
     "        Some(_) => true,\n"),
]

ROOT = pathlib.Path(__file__).resolve().parents[2]
COPY = ROOT / "target" / "prove"
SEEDS = 100  # of 100 operations


def source():
    """A fresh copy of what is built."""
    COPY.mkdir(parents=True, exist_ok=True)
    # The target directory is its own: cargo takes both trees for one package.
    for name in ["src", "tests", "benches", "examples", "fuzz", "docs"]:
        shutil.rmtree(COPY / name, ignore_errors=True)
        if (ROOT / name).exists():
            # Without times: what was planted before is no newer than its copy.
            skipped = shutil.ignore_patterns("target", "node_modules")
            shutil.copytree(ROOT / name, COPY / name, ignore=skipped, copy_function=shutil.copyfile)
    # Of the tests, the oracle alone.
    tests = COPY / "tests" / "it.rs"
    head = tests.read_text().split("mod harness;")[0]
    tests.write_text(head + '#[path = "it/oracle.rs"]\nmod oracle;\n')
    for name in ["Cargo.toml", "Cargo.lock", "README.md", "clippy.toml", "action.yml"]:
        if (ROOT / name).exists():
            shutil.copyfile(ROOT / name, COPY / name)


def found():
    """Runs the oracle on the copy; what it says of the fault, or None."""
    environment = dict(os.environ, CARGO_TARGET_DIR=str(COPY / "target"), CARGO_PROFILE_DEV_OPT_LEVEL="1",
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
        source()
        file = COPY / path
        text = file.read_text()
        if text.count(before) != 1:
            sys.exit(f"{path} does not hold the text of `{what}` once")
        file.write_text(text.replace(before, after))
        said = found()
        print(f"{'found ' if said else 'MISSED'}  {what}\n        {said or ''}", flush=True)
        if not said:
            missed.append(what)
    print(f"{many - len(missed)} of {many} faults found")
    sys.exit(1 if missed else 0)


main()
