// Serves GitHub's recorded answers of @octokit/fixtures through @octokit/fixtures-server, each once:
// a second request for the same thing is a 404, so a cache that asks again is found out.
//
// Prints its address and serves until stdin ends. The recordings match one spelling of Accept and
// Authorization; a client's own spelling is replaced by it here, nothing else is touched.

import http from "node:http";
import express from "express";
import fixtures from "@octokit/fixtures";
import fixturesServer from "@octokit/fixtures-server";

const SCENARIOS = ["get-repository", "get-organization", "paginate-issues", "rename-repository", "release-assets", "search-issues", "labels"];
const recorded = { accept: "application/vnd.github.v3+json", authorization: "token 0000000000000000000000000000000000000001" };

const server = http.createServer();
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const port = server.address().port;
const base = `http://127.0.0.1:${port}`;
const app = express();
app.use(fixturesServer({ port, fixturesUrl: base, logLevel: "silent", ttl: 600000 }));

const routes = new Map();
async function load(scenario) {
  const answer = await fetch(`${base}/fixtures`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ scenario }),
  });
  const { url } = await answer.json();
  const prefix = new URL(url).pathname;
  const exchanges = fixtures.get(`api.github.com/${scenario}`);
  // What was recorded before the first GET happened before: a repository was renamed.
  for (const { method, path, body } of exchanges.slice(0, exchanges.findIndex(({ method }) => method === "get"))) {
    await fetch(url + path, { method: method.toUpperCase(), headers: { ...recorded, "content-type": "application/json; charset=utf-8" }, body: JSON.stringify(body) });
  }
  for (const { method, path } of exchanges) {
    if (method === "get") routes.set(path.split("?")[0], prefix);
  }
}

server.on("request", (request, response) => {
  const path = request.url.split("?")[0];
  const prefix = routes.get(path);
  const wanted = [...fixturesQueries(path)].find((query) => sorted(query) === sorted(request.url.split("?")[1] ?? ""));
  if (prefix !== undefined) {
    // The recordings know one order of parameters.
    request.url = prefix + path + (wanted ? `?${wanted}` : "");
    Object.assign(request.headers, recorded);
    delete request.headers["x-github-api-version"];
    // Addresses in answers lead back here, not to a scenario.
    const home = (value) => (typeof value === "string" ? value.replaceAll(`${base}${prefix}`, base) : value);
    const setHeader = response.setHeader.bind(response);
    response.setHeader = (name, value) => setHeader(name, home(value));
  }
  app(request, response);
});

function* fixturesQueries(path) {
  for (const scenario of SCENARIOS) {
    for (const exchange of fixtures.get(`api.github.com/${scenario}`)) {
      const [known, query] = exchange.path.split("?");
      if (known === path && query) yield query;
    }
  }
}

function sorted(query) {
  return query.split("&").sort().join("&");
}

for (const scenario of SCENARIOS) await load(scenario);
console.log(base);
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
