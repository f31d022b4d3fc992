/** A copy of the compiled project in which one file at a time is replaced by a mutant of it. */
import { cpSync, copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';
import { projectRoot } from '../project-root.js';
import { mutated, type Mutant } from './mutant.js';

const places = join(projectRoot, '.build/mutants');

/** What tsconfig.json makes of a single file: its types are gone, and nothing else is changed. */
const compilerOptions: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2023,
  module: ts.ModuleKind.ESNext,
  verbatimModuleSyntax: true,
};

/** The JavaScript of a mutant; throws when its text is no TypeScript any more. */
export function compiledMutant(mutant: Mutant): string {
  const { outputText, diagnostics = [] } = ts.transpileModule(mutated(mutant), {
    compilerOptions,
    fileName: mutant.file,
    reportDiagnostics: true,
  });
  const [problem] = diagnostics;
  if (problem !== undefined)
    throw new Error(
      `mutant ${mutant.name}: ${ts.flattenDiagnosticMessageText(problem.messageText, ' ')}`,
    );
  return outputText;
}

export class Workplace {
  readonly folder: string;

  /** Copies what `npm run build` has left in `dist/`; nothing here ever writes there. */
  constructor(number: number) {
    this.folder = join(places, String(number));
    rmSync(this.folder, { recursive: true, force: true });
    mkdirSync(this.folder, { recursive: true });
    cpSync(join(projectRoot, 'dist'), join(this.folder, 'dist'), {
      recursive: true,
      filter: (path) => !/\.(map|d\.ts|tsbuildinfo)$/.test(path),
    });
  }

  /** Runs `work` while the mutant is in place. */
  async with<T>(mutant: Mutant, work: () => Promise<T>): Promise<T> {
    const script = mutant.file.replace(/\.ts$/, '.js');
    writeFileSync(join(this.folder, 'dist', script), compiledMutant(mutant));
    try {
      return await work();
    } finally {
      copyFileSync(join(projectRoot, 'dist', script), join(this.folder, 'dist', script));
    }
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}
