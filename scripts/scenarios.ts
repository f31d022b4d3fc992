/**
 * Writes docs/scenarios.md: every named scenario (R..) and rule (D..) with the tests that name it
 * in their title or file name. `--check` writes nothing and fails when the file is out of date or
 * a name of this floor has no test.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from './project-root.js';

/** Names that the ground floor owes a test. Others are listed when they have one. */
const owed: readonly string[] = [
  ...range('R', 1, 14),
  ...range('R', 20, 24),
  ...range('R', 30, 34),
  ...range('D', 1, 6),
  'D08',
  ...range('D', 10, 16),
  ...range('D', 20, 23),
  'D26',
];

const namePattern = /\b([RD])(\d{2})\b/g;
const output = join(projectRoot, 'docs/scenarios.md');

function range(letter: string, first: number, last: number): string[] {
  return Array.from(
    { length: last - first + 1 },
    (_, n) => `${letter}${String(first + n).padStart(2, '0')}`,
  );
}

interface Mention {
  readonly name: string;
  readonly test: string;
}

/** Titles of `it` and `describe` calls, or the intent line of a scenario file. */
function titlesOf(file: string, text: string): readonly string[] {
  if (file.endsWith('.txt')) {
    const [base = ''] = (file.split('/').at(-1) ?? '').split('.');
    return [base.replace(/\b[rd]\d{2}\b/g, (name) => name.toUpperCase())];
  }
  return [...text.matchAll(/\b(?:it|describe)\(\s*(['"`])((?:\\.|(?!\1)[\s\S])*?)\1/g)].map(
    (match) => match[2] ?? '',
  );
}

function mentions(): readonly Mention[] {
  const files = readdirSync(join(projectRoot, 'test'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.test.ts') || file.endsWith('.txt'))
    .sort();
  return files.flatMap((file) => {
    const titles = titlesOf(file, readFileSync(join(projectRoot, 'test', file), 'utf8'));
    return titles.flatMap((title) =>
      [...title.matchAll(namePattern)].map((match) => ({
        name: match[0],
        test: `test/${file}${file.endsWith('.txt') ? '' : `: ${title.replaceAll('|', '\\|')}`}`,
      })),
    );
  });
}

function page(found: ReadonlyMap<string, readonly string[]>): string {
  const lines = [
    '# Scenarios and rules, and their tests',
    '',
    'Written by `npm run scenarios`; `npm test` fails when it is out of date. R.. are bugs that other',
    'systems have had, D.. schedules that break a naive design.',
    '',
    '| name | tests |',
    '|---|---|',
  ];
  for (const name of [...found.keys()].sort()) {
    lines.push(`| ${name} | ${(found.get(name) ?? []).join('<br>')} |`);
  }
  return `${lines.join('\n')}\n`;
}

const found = new Map<string, string[]>();
for (const { name, test } of mentions()) {
  const tests = found.get(name);
  if (tests === undefined) found.set(name, [test]);
  else if (!tests.includes(test)) tests.push(test);
}
const problems = owed.filter((name) => !found.has(name)).map((name) => `${name}: no test names it`);
const text = page(found);
if (process.argv.includes('--check')) {
  if (readFileSync(output, 'utf8') !== text)
    problems.push('docs/scenarios.md is out of date: npm run scenarios');
} else {
  writeFileSync(output, text);
}
for (const problem of problems) console.error(problem);
console.log(
  problems.length === 0
    ? `scenarios: ok (${found.size} names)`
    : `scenarios: ${problems.length} problems`,
);
process.exitCode = problems.length === 0 ? 0 : 1;
