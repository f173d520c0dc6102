// Runs `calls.outcomes` in MicroPython. In, as JSON: the files to import, by path, and the calls. Out: their outcomes.
import { readFileSync } from "node:fs";
import { loadMicroPython } from "../node_modules/@micropython/micropython-webassembly-pyscript/micropython.mjs";

const { files, calls } = JSON.parse(readFileSync(0, "utf8"));
const { FS, globals, runPython } = await loadMicroPython({ heapsize: 8 << 20 });
for (const [path, text] of Object.entries(files)) {
  FS.mkdirTree(`/lib/${path}`.replace(/\/[^/]*$/, ""));
  FS.writeFile(`/lib/${path}`, text);
}
try {
  runPython("from calls import outcomes");
  process.stdout.write(globals.get("outcomes")(JSON.stringify(calls)));
} catch (error) {
  // Not thrown: Node would print the line it came from, which is all of MicroPython.
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
}
