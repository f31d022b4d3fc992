/**
 * Checks what no linter does: length of files and functions, banned words, names of files, share
 * of comments, tests that cannot be trusted. Part of `npm test`.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import ts from 'typescript';
import { projectRoot } from './project-root.js';

const fileLinesMax = 600;
const functionLinesMax = 70;
const commentShareMin: readonly (readonly [string, number])[] = [['raft/', 0.2]];
const bannedNames = /(^|-)(util|utils|helper|helpers|manager|common|misc|data|info)(-|\.|$)/;
const bannedText: readonly (readonly [RegExp, string])[] = [
  [/\bas any\b|:\s*any\s*[;,)=\]|>[]/, 'any'],
  [/@ts-ignore|@ts-expect-error|eslint-disable/, 'a silenced check'],
  [/\b(TODO|FIXME|XXX)\b/, 'TODO without an issue'],
  [/\b(it|describe)\.(only|skip)\(/, 'a test left out'],
  [/this\.retries\(/, 'a retried test'],
];

function tracked(): string[] {
  const listed = execFileSync('git', ['ls-files', '-co', '--exclude-standard', '*.ts'], {
    cwd: projectRoot,
    encoding: 'utf8',
  });
  return listed.split('\n').filter((name) => name.endsWith('.ts'));
}

/** Lines that hold nothing but comment. */
function commentLines(text: string): number {
  return text.split('\n').filter((line) => /^\s*(\/\/|\/\*|\*)/.test(line)).length;
}

function longFunctions(file: string, source: ts.SourceFile): string[] {
  const found: string[] = [];
  const visit = (node: ts.Node): void => {
    const isTestBody = file.startsWith('test/') || file.startsWith('jepsen/');
    if (!isTestBody && ts.isFunctionLike(node)) {
      const first = source.getLineAndCharacterOfPosition(node.getStart()).line;
      const lines = source.getLineAndCharacterOfPosition(node.getEnd()).line - first + 1;
      if (lines > functionLinesMax)
        found.push(
          `${file}:${first + 1}: a function of ${lines} lines (limit ${functionLinesMax})`,
        );
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

function check(file: string, shares: Map<string, { lines: number; comments: number }>): string[] {
  const text = readFileSync(join(projectRoot, file), 'utf8');
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true);
  const lines = text.split('\n').length;
  const problems = longFunctions(file, source);
  if (lines > fileLinesMax)
    problems.push(`${file}: ${lines} lines (limit ${fileLinesMax}): split it by concept`);
  if (bannedNames.test(basename(file))) problems.push(`${file}: say what it is, not that it helps`);
  if (file !== 'scripts/tidy.ts') {
    for (const [pattern, what] of bannedText) {
      if (pattern.test(text)) problems.push(`${file}: ${what}`);
    }
  }
  for (const [folder] of commentShareMin) {
    if (!file.startsWith(folder)) continue;
    const share = shares.get(folder) ?? { lines: 0, comments: 0 };
    shares.set(folder, {
      lines: share.lines + lines,
      comments: share.comments + commentLines(text),
    });
  }
  return problems;
}

const shares = new Map<string, { lines: number; comments: number }>();
const problems = tracked().flatMap((file) => check(file, shares));
for (const [folder, min] of commentShareMin) {
  const { lines, comments } = shares.get(folder) ?? { lines: 1, comments: 0 };
  if (comments / lines < min) {
    problems.push(
      `${folder}: ${Math.round((100 * comments) / lines)} % comments (at least ${100 * min} %)`,
    );
  }
}
for (const problem of problems) console.error(problem);
console.log(problems.length === 0 ? 'tidy: ok' : `tidy: ${problems.length} problems`);
process.exitCode = problems.length === 0 ? 0 : 1;
