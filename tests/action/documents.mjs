// Validates GraphQL documents against GitHub's published schema.
// node documents.mjs FILE, a JSON list of texts.
import { readFileSync } from "node:fs";
import { buildSchema, parse, validate } from "graphql";

const published = new URL("node_modules/@octokit/graphql-schema/schema.graphql", import.meta.url);
const schema = buildSchema(readFileSync(published, "utf8"), { assumeValidSDL: true });
const documents = JSON.parse(readFileSync(process.argv[2], "utf8"));
for (const text of documents) {
  const errors = validate(schema, parse(text));
  if (errors.length > 0) {
    console.log(`${errors.map((error) => error.message).join("\n")}\n${text}`);
    process.exit(1);
  }
}
console.log(`${documents.length} documents are valid`);
