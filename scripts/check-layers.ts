/**
 * Checks the house rules of imports: who may see whom, no cycles, and in `raft/` no word that a
 * compiler cannot ban. Part of `npm test`; its message names the rule.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { projectRoot } from './project-root.js';

interface Rule {
  /** Files under this folder (or this very file) ... */
  readonly from: string;
  /** ... may import only from these, and from their own folder. */
  readonly may: readonly string[];
}

const observe = ['src/observe', 'src/errors.ts', 'src/bytes.ts'];

/** The floors of the house, lowest first. A more special rule stands before a more general one. */
const rules: readonly Rule[] = [
  { from: 'raft', may: [] },
  { from: 'storage', may: ['raft/index.ts'] },
  { from: 'proto', may: [] },
  { from: 'src/errors.ts', may: [] },
  { from: 'src/bytes.ts', may: [] },
  { from: 'src/observe', may: ['src/errors.ts'] },
  { from: 'src/config', may: observe },
  { from: 'src/transport', may: [...observe, 'raft/index.ts', 'proto'] },
  { from: 'src/group', may: [...observe, 'raft/index.ts', 'storage/index.ts', 'src/transport'] },
  {
    from: 'src/shard',
    may: [
      ...observe,
      'raft/index.ts',
      'storage/index.ts',
      'src/group',
      'src/router/slot.ts',
      'src/router/slot-spans.ts',
      'src/router/pins.ts',
      'src/meta/slot-map.ts',
    ],
  },
  {
    from: 'src/meta',
    may: [
      ...observe,
      'raft/index.ts',
      'storage/index.ts',
      'src/group',
      'src/router/slot.ts',
      'src/router/slot-spans.ts',
      'src/router/pins.ts',
    ],
  },
  { from: 'src/router/slot.ts', may: [] },
  { from: 'src/router/slot-spans.ts', may: ['src/router/slot.ts'] },
  { from: 'src/router/pins.ts', may: ['src/router/slot.ts'] },
  { from: 'src/router', may: [...observe, 'src/meta/slot-map.ts', 'src/shard', 'src/group'] },
  {
    from: 'src/cluster',
    may: [
      ...observe,
      'raft/index.ts',
      'storage/index.ts',
      'src/group',
      'src/shard',
      'src/meta',
      'src/router',
    ],
  },
  // Knows frames and streams, and nothing of what is asked: could serve anybody.
  { from: 'src/api/http2', may: observe },
  {
    from: 'src/api',
    may: [
      ...observe,
      'proto',
      'src/router',
      'src/shard',
      'src/group',
      'src/meta',
      'src/config',
      'src/cluster',
    ],
  },
  {
    from: 'src/client',
    may: ['src/errors.ts', 'proto', 'src/router/slot.ts', 'src/router/pins.ts'],
  },
  // `quorate server` loads the server's entry, and only then.
  { from: 'src/cli/server-command.ts', may: ['src/main.ts'] },
  // Works on the files of nodes that do not run.
  {
    from: 'src/cli/recover-command.ts',
    may: ['src/cli', 'src/config', 'src/group/stopped-node.ts', 'src/group/recovery-plan.ts'],
  },
  {
    from: 'src/cli',
    may: [
      'src/errors.ts',
      'src/client',
      'proto',
      'src/router/slot.ts',
      'src/router/slot-spans.ts',
      'src/router/pins.ts',
      'src/config',
    ],
  },
  // Judged by themselves: the simulator checks its histories with them too.
  { from: 'jepsen/history.ts', may: [] },
  { from: 'jepsen/checkers', may: ['jepsen/history.ts'] },
  { from: 'jepsen/report', may: ['jepsen/history.ts'] },
  { from: 'jepsen', may: ['src/client', 'src/errors.ts'] },
];

/** `main.ts`, tests and scripts put things together and may see everything. */
const free = [
  'src/main.ts',
  'src/node.ts',
  'src/node-parts.ts',
  'src/node-picture.ts',
  'src/client-port.ts',
  'src/client-services.ts',
  'src/machine.ts',
  'src/foundations.ts',
  'test',
  'scripts',
];

const bannedInRaft =
  /\b(async|await|Promise|Date|Math\.random|console|process|setTimeout|setInterval)\b/;

/** None for a folder that has no files yet: git does not keep empty ones. */
function sources(folder: string): string[] {
  if (!existsSync(join(projectRoot, folder))) return [];
  return readdirSync(join(projectRoot, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => normalize(join(folder, name)));
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/\/\/.*$/gm, '');
}

function importsOf(file: string, text: string): string[] {
  const found = [...text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)].map((m) => m[1] ?? '');
  return found.map((name) => normalize(join(dirname(file), name.replace(/\.js$/, '.ts'))));
}

const under = (file: string, place: string): boolean =>
  file === place || file.startsWith(`${place}/`);

function violation(file: string, target: string): string | undefined {
  if (free.some((place) => under(file, place))) return undefined;
  const rule = rules.find((candidate) => under(file, candidate.from));
  if (rule === undefined)
    return `${file}: no floor is defined for this folder (scripts/check-layers.ts)`;
  if (under(target, rule.from) || rule.may.some((place) => under(target, place))) return undefined;
  const may = rule.may.length === 0 ? 'nothing outside its folder' : rule.may.join(', ');
  return `${file} imports ${target}: ${rule.from} may import ${may}`;
}

/** The first cycle found, as the list of its files; type-only imports count as well. */
function findCycle(graph: ReadonlyMap<string, readonly string[]>): readonly string[] | undefined {
  const done = new Set<string>();
  const path: string[] = [];
  const visit = (file: string): readonly string[] | undefined => {
    if (done.has(file)) return undefined;
    const at = path.indexOf(file);
    if (at >= 0) return [...path.slice(at), file];
    path.push(file);
    for (const next of graph.get(file) ?? []) {
      const cycle = visit(next);
      if (cycle !== undefined) return cycle;
    }
    path.pop();
    done.add(file);
    return undefined;
  };
  for (const file of graph.keys()) {
    const cycle = visit(file);
    if (cycle !== undefined) return cycle;
  }
  return undefined;
}

function checkLayers(): string[] {
  const problems: string[] = [];
  const graph = new Map<string, readonly string[]>();
  for (const file of ['raft', 'storage', 'proto', 'src', 'jepsen', 'scripts', 'test'].flatMap(
    sources,
  )) {
    const text = withoutComments(readFileSync(join(projectRoot, file), 'utf8'));
    const targets = importsOf(file, text);
    graph.set(file, targets);
    for (const target of targets) {
      const problem = violation(file, target);
      if (problem !== undefined) problems.push(problem);
    }
    const banned = under(file, 'raft') ? bannedInRaft.exec(text) : null;
    if (banned !== null)
      problems.push(`${file}: '${banned[0]}' is banned in raft/ (no I/O, clock or Promise)`);
  }
  const cycle = findCycle(graph);
  if (cycle !== undefined) problems.push(`import cycle: ${cycle.join(' -> ')}`);
  return problems;
}

const problems = checkLayers();
for (const problem of problems) console.error(problem);
console.log(
  problems.length === 0
    ? 'layers: ok'
    : `layers: ${problems.length} problems (${relative(projectRoot, import.meta.filename)})`,
);
process.exitCode = problems.length === 0 ? 0 : 1;
