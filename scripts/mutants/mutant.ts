/**
 * A mutant: one small bug, put into one file of the product, and the checks that have to notice it.
 * Production code carries no switch: the bug is a change of text, compiled in a copy of `dist/`.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../project-root.js';

/** Compiled tests, by the paths of their sources without `.ts`, and the titles that are run of them. */
export interface TestCheck {
  readonly kind: 'tests';
  readonly files: readonly string[];
  readonly titles: string | undefined;
}

/** The core-level simulator, from `seedFrom` on, `seeds` of them. */
export interface SimCheck {
  readonly kind: 'sim';
  readonly seeds: number;
  readonly seedFrom: number;
}

export type Check = TestCheck | SimCheck;

export type Section = 'raft' | 'storage' | 'service';

interface Bug {
  /** Kebab-case, as it is called in the table. */
  readonly name: string;
  /** What it does wrong, and the rule or scenario that forbids it. */
  readonly breaks: string;
  readonly file: string;
  /** Stands in the file exactly once: otherwise the code has changed, and the mutant with it. */
  readonly find: string;
  readonly replace: string;
}

export type Mutant = Bug & {
  readonly section: Section;
  /** The fastest that catches it first. */
  readonly checks: readonly Check[];
  /** Why no check can ever notice it; undefined: it has to be caught. */
  readonly equivalent?: string;
};

/** `titles`: a part of the titles to run, as mocha's --grep. */
export function tests(files: string | readonly string[], titles?: string): TestCheck {
  return { kind: 'tests', files: typeof files === 'string' ? [files] : files, titles };
}

export function sim(seeds: number, seedFrom = 1): SimCheck {
  return { kind: 'sim', seeds, seedFrom };
}

/** The file's text with the bug in it. Throws when the place is not there, or not the only one. */
export function mutated({ name, file, find, replace }: Bug): string {
  const text = readFileSync(join(projectRoot, file), 'utf8');
  const first = text.indexOf(find);
  if (first < 0) throw new Error(`mutant ${name}: its text is not in ${file} any more`);
  if (text.indexOf(find, first + 1) >= 0)
    throw new Error(`mutant ${name}: its text stands more than once in ${file}`);
  if (find === replace) throw new Error(`mutant ${name} changes nothing`);
  return text.slice(0, first) + replace + text.slice(first + find.length);
}
