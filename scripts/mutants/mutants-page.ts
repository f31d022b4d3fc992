/** docs/mutants.md: each mutant with what caught it, and how many seeds the simulator needed. */
import type { CheckResult } from './run-check.js';
import type { Mutant, Section } from './mutant.js';

interface Row {
  readonly mutant: Mutant;
  readonly results: readonly CheckResult[];
}

const sections: readonly { readonly section: Section; readonly title: string }[] = [
  { section: 'raft', title: 'Raft core' },
  { section: 'storage', title: 'Storage' },
  { section: 'service', title: 'Service: groups, shards, migrations' },
];

export function mutantsPage(rows: readonly Row[]): string {
  const judged = rows.filter(({ mutant }) => mutant.equivalent === undefined);
  const caught = judged.filter(({ results }) => results.some(isCatch)).length;
  const equal = rows.length - judged.length;
  const lines = [
    '# Mutants: can the checks fail?',
    '',
    'Written by `npm run mutants`. Each line is a bug that is put into the product, compiled, and looked',
    'for by the checks; what noticed it first stands behind it. `seeds`: how many runs of the core-level',
    'simulator it took to notice the bug without any directed test; `-`: more than were tried.',
    '',
    `${caught} of ${judged.length} are caught${equal === 0 ? '' : `; ${equal} more can be noticed by nobody, for the reason given`}.`,
  ];
  for (const { section, title } of sections)
    lines.push('', `## ${title}`, '', ...table(rows, section));
  return `${lines.join('\n')}\n`;
}

const isCatch = ({ caughtBy }: CheckResult): boolean => caughtBy !== undefined;

function table(rows: readonly Row[], section: Section): string[] {
  const own = rows.filter(({ mutant }) => mutant.section === section);
  return [
    '| mutant | what it breaks | caught by | seeds |',
    '|---|---|---|---|',
    ...own.map((row) => {
      const { name, breaks } = row.mutant;
      return `| ${name} | ${cell(breaks)} | ${cell(caughtBy(row))} | ${seedsOf(row)} |`;
    }),
  ];
}

function caughtBy({ mutant, results }: Row): string {
  if (mutant.equivalent !== undefined) return `equivalent: ${mutant.equivalent}`;
  return results.find(isCatch)?.caughtBy ?? '**survived**';
}

/** Empty: the simulator does not run this code. */
function seedsOf({ mutant, results }: Row): string {
  const at = mutant.checks.findIndex(({ kind }) => kind === 'sim');
  const check = mutant.checks[at];
  if (check?.kind !== 'sim' || mutant.equivalent !== undefined) return '';
  const seeds = results[at]?.seeds;
  if (seeds === undefined) return '-';
  return check.seedFrom === 1 ? String(seeds) : `${seeds} from ${check.seedFrom} on`;
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('\n', ' ');
}
