// Judges Kubernetes objects by the schemas and the types of @kubernetes-models.
//
// node crds.mjs FOLDER < [{"name", "object"}] > ["name: what is wrong"]: FOLDER has the packages. The
// schemas know patterns and bounds but let unknown fields pass; the types of a literal do not.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

// By group of the API: the package, and the folder of the group in it.
const PACKAGES = {
  "monitoring.coreos.com": "prometheus-operator",
  "gateway.networking.k8s.io": "gateway-api",
  "gateway.envoyproxy.io": "envoy-gateway",
  "networking.istio.io": "istio",
  "security.istio.io": "istio",
  "traefik.io": "traefik",
};

const [folder] = process.argv.slice(2);
const require = createRequire(join(folder, "package.json"));
const ts = require("typescript");
const entries = JSON.parse(readFileSync(0, "utf8"));
const problems = [];

function moduleOf(object) {
  const [group, version] = object.apiVersion.split("/");
  return PACKAGES[group] && `@kubernetes-models/${PACKAGES[group]}/${group}/${version}`;
}

async function judgeBySchema({ name, object }) {
  const path = join(folder, "node_modules", moduleOf(object), `${object.kind}.js`);
  const model = (await import(pathToFileURL(path)))[object.kind];
  try {
    new model(structuredClone(object)).validate();
  } catch (error) {
    problems.push(`${name}: ${error.message}`);
  }
}

function judgeByTypes(known) {
  const source = known.map(({ object }, index) => [
    `import type { I${object.kind} as T${index} } from "${moduleOf(object)}";`,
    `export const object${index}: T${index} = ${JSON.stringify(object)};`,
  ]);
  const path = join(folder, "objects.ts");
  const text = source.flat().join("\n");
  const options = {
    strict: true, noEmit: true, skipLibCheck: true, types: [], target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext,
  };
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists, readFile } = host;
  host.getSourceFile = (file, ...rest) =>
    file === path ? ts.createSourceFile(file, text, options.target) : getSourceFile(file, ...rest);
  host.fileExists = file => file === path || fileExists(file);
  host.readFile = file => (file === path ? text : readFile(file));
  for (const found of ts.getPreEmitDiagnostics(ts.createProgram([path], options, host))) {
    const line = found.file?.fileName === path ? text.slice(0, found.start).split("\n").length - 1 : -1;
    const name = line < 0 ? "the types" : known[Math.floor(line / 2)].name;
    problems.push(`${name}: ${ts.flattenDiagnosticMessageText(found.messageText, " ")}`);
  }
}

const known = entries.filter(({ name, object }) => {
  if (moduleOf(object)) return true;
  problems.push(`${name}: there is no schema of ${object.apiVersion} ${object.kind}`);
  return false;
});
for (const entry of known) await judgeBySchema(entry);
judgeByTypes(known);
console.log(JSON.stringify(problems));
