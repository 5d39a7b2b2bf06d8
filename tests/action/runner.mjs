// Runs the composite action on this machine: inputs, expressions, conditions, outputs, scripts;
// a directory stands in for actions/cache.
//
// node runner.mjs SCENARIO.json   prints what happened as JSON
//
// Scenario: { action, workspace, cache, github, env }, `temp` (a machine whose RUNNER_TEMP stays), and `inputs` of the Action, or `job`, the steps of a job;
// there, `uses: ./proxy` is an action of the same repository. Expressions are evaluated by GitHub's
// own parser and evaluator.

import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import { createHash } from "node:crypto";
import path from "node:path";
import { data, Evaluator, Lexer, Parser } from "@actions/expressions";
import { parse } from "yaml";

const scenario = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const temp = scenario.temp ?? fs.mkdtempSync(path.join(os.tmpdir(), "runner-"));
const eventFile = path.join(temp, "event.json");
const log = [];
let failed = false;
let summary = "";
// What steps have set for those after them.
const jobEnv = {};
// Contexts of the steps that are under way: an action's own, else the job's.
let github = { action_path: scenario.action, ...scenario.github };
let inputs = {};
let steps = {};
fs.writeFileSync(eventFile, JSON.stringify(github.event));

function toData(value) {
  if (value === null || value === undefined) return new data.Null();
  if (typeof value === "boolean") return new data.BooleanData(value);
  if (typeof value === "number") return new data.NumberData(value);
  if (typeof value === "string") return new data.StringData(value);
  return new data.Dictionary(...Object.entries(value).map(([key, inner]) => ({ key, value: toData(inner) })));
}

function evaluate(text, contexts) {
  const names = ["github", "inputs", "steps", "runner", "env"];
  const status = (name, value) => [name, { name, minArgs: 0, maxArgs: 0, call: () => new data.BooleanData(value()) }];
  const functions = new Map([
    status("always", () => true),
    status("success", () => !failed),
    status("failure", () => failed),
    status("cancelled", () => false),
  ]);
  const { tokens } = new Lexer(text).lex();
  const tree = new Parser(tokens, names, [...functions.values()]).parse();
  const all = { github, inputs, steps, runner: { os: "Linux", temp }, env: {}, ...contexts };
  return new Evaluator(tree, toData(all), functions).evaluate();
}

function fill(text, contexts = {}) {
  return text.replace(/\$\{\{(.*?)\}\}/gs, (_, expression) => evaluate(expression.trim(), contexts).coerceString());
}

function condition(step) {
  const text = (step.if ?? "success()").replace(/^\$\{\{|\}\}$/g, "").trim();
  const asksStatus = /\b(always|success|failure|cancelled)\s*\(/.test(text);
  const full = asksStatus ? text : `success() && (${text})`;
  const value = evaluate(full, {});
  return value.coerceString() === "true" || (value.coerceString() !== "false" && value.coerceString() !== "");
}

function readOutputs(file) {
  const outputs = {};
  const lines = fs.readFileSync(file, "utf8").split("\n");
  for (let at = 0; at < lines.length; at++) {
    const heredoc = /^([^=]+?)<<(.+)$/.exec(lines[at]);
    if (heredoc) {
      const value = [];
      while (lines[++at] !== heredoc[2]) value.push(lines[at]);
      outputs[heredoc[1]] = value.join("\n");
    } else if (lines[at].includes("=")) {
      const split = lines[at].indexOf("=");
      outputs[lines[at].slice(0, split)] = lines[at].slice(split + 1);
    }
  }
  return outputs;
}

// actions/cache, as far as it matters: the entry by prefix that was made last; a key cannot be written twice; what was
// saved under other paths is not found; not even an empty `cache-hit` on a miss.
const pathsOf = (given) => given.path.split("\n").filter(Boolean);
const version = (given) => "@" + createHash("sha256").update(pathsOf(given).join("|")).digest("hex").slice(0, 8);

function cacheRestore(given) {
  const all = fs.existsSync(scenario.cache) ? fs.readdirSync(scenario.cache) : [];
  const madeAt = (name) => fs.statSync(path.join(scenario.cache, name)).mtimeMs;
  all.sort((a, b) => madeAt(a) - madeAt(b));
  const entries = all.filter((name) => name.endsWith(version(given))).map((name) => name.slice(0, -version(given).length));
  const matching = entries.filter((name) => name === given.key || given["restore-keys"].split("\n").some((prefix) => prefix && name.startsWith(prefix)));
  if (matching.length === 0) return {};
  const newest = matching[matching.length - 1];
  execFileSync("tar", ["-xf", path.join(scenario.cache, newest + version(given))], { cwd: scenario.workspace });
  return { "cache-hit": String(newest === given.key), "cache-matched-key": newest };
}

function cacheSave(given) {
  fs.mkdirSync(scenario.cache, { recursive: true });
  const target = path.join(scenario.cache, given.key + version(given));
  if (fs.existsSync(target)) throw new Error(`the key ${given.key} exists`);
  if (given.key.length > 512 || given.key.includes(",")) throw new Error("no key");
  const there = pathsOf(given).filter((name) => fs.existsSync(path.join(scenario.workspace, name)));
  execFileSync("tar", ["-cf", target, ...there], { cwd: scenario.workspace });
  log.push({ saved: given.key });
  return {};
}

// A composite action with these inputs; its outputs.
function runAction(dir, given) {
  const action = parse(fs.readFileSync(path.join(dir, "action.yml"), "utf8"));
  const outer = { github, inputs, steps };
  github = { ...github, action_path: dir };
  const filled = {};
  for (const [name, spec] of Object.entries(action.inputs ?? {})) {
    filled[name] = given[name] ?? fill(String(spec.default ?? ""));
  }
  [inputs, steps] = [filled, {}];
  runSteps(action.runs.steps);
  const outputs = Object.fromEntries(Object.entries(action.outputs ?? {}).map(([name, spec]) => [name, fill(spec.value)]));
  ({ github, inputs, steps } = outer);
  return outputs;
}

function runSteps(all) {
  for (const step of all) {
    const record = { name: step.name, outcome: "skipped" };
    log.push(record);
    if (!condition(step)) continue;
    let outputs = {};
    try {
      if (step.uses) {
        const given = Object.fromEntries(Object.entries(step.with ?? {}).map(([name, value]) => [name, fill(String(value))]));
        if (step.uses.startsWith("./")) outputs = runAction(path.join(scenario.action, step.uses), given);
        else outputs = step.uses.startsWith("actions/cache/restore@") ? cacheRestore(given) : cacheSave(given);
        record.outcome = "success";
      } else {
        outputs = runScript(step, record);
      }
    } catch (error) {
      record.outcome = "failure";
      record.stderr = String(error);
    }
    if (record.outcome === "failure") failed = true;
    if (step.id) steps[step.id] = { outputs, outcome: record.outcome, conclusion: record.outcome };
  }
}

function runScript(step, record) {
  const file = (name) => path.join(temp, `${name}-${log.length}`);
  for (const name of ["output", "summary", "env"]) fs.writeFileSync(file(name), "");
  const env = Object.fromEntries(Object.entries(step.env ?? {}).map(([name, value]) => [name, fill(String(value))]));
  const run = spawnSync("bash", ["--noprofile", "--norc", "-eo", "pipefail", "-c", fill(step.run)], {
    cwd: scenario.workspace,
    encoding: "utf8",
    env: {
      PATH: process.env.PATH, HOME: temp, CI: "true", GITHUB_ACTIONS: "true", GITHUB_ACTION_PATH: github.action_path,
      GITHUB_WORKSPACE: scenario.workspace, GITHUB_OUTPUT: file("output"), GITHUB_STEP_SUMMARY: file("summary"),
      GITHUB_ENV: file("env"), RUNNER_TEMP: temp, RUNNER_OS: "Linux", GITHUB_EVENT_NAME: github.event_name,
      GITHUB_EVENT_PATH: eventFile, GITHUB_REPOSITORY: github.repository, GITHUB_API_URL: github.api_url,
      ...scenario.env, ...jobEnv, ...env,
    },
  });
  // As a runner does: masks are taken out of the log, and what they name is masked from then on.
  const masks = [...run.stdout.matchAll(/^::add-mask::(.+)$/gm)].map((found) => found[1]);
  const hide = (text) => masks.reduce((hidden, mask) => hidden.replaceAll(mask, "***"), text.replace(/^::add-mask::.*\n/gm, ""));
  record.masked = masks.length;
  record.stdout = hide(run.stdout);
  record.stderr = hide(run.stderr);
  record.outcome = run.status === 0 ? "success" : "failure";
  summary += fs.readFileSync(file("summary"), "utf8");
  Object.assign(jobEnv, readOutputs(file("env")));
  return readOutputs(file("output"));
}

let outputs = {};
if (scenario.job) runSteps(scenario.job);
else outputs = runAction(scenario.action, scenario.inputs);
if (!scenario.temp) fs.rmSync(temp, { recursive: true });
console.log(JSON.stringify({ outputs, steps: log, failed, summary }));
