/** The two levels of simulation, as the command line runs them. */
import { runCoreSim } from './core-sim.js';
import { covered } from './coverage.js';
import { runNodeSim } from './node/node-sim.js';
import { nodeCovered, nodeRare } from './node/node-coverage.js';

export interface SimOptions {
  readonly seed: number;
  /** Virtual time of the storm; healing comes after it. */
  readonly seconds: number;
  /** Lines of text kept, 0 for none. */
  readonly traceLines: number;
  readonly print?: (line: string) => void;
}

export interface SimResult {
  readonly seed: number;
  /** Two runs of one seed have the same. */
  readonly hash: string;
  readonly coverage: Readonly<Record<string, number>>;
  /** Why the run failed, with the stack; undefined if it passed. */
  readonly failure: string | undefined;
  readonly lines: readonly string[];
}

export interface SimKind {
  readonly name: string;
  /** Virtual time of a storm, unless said otherwise. */
  readonly seconds: number;
  /** With fewer seeds something of `covered` may well not have happened by chance. */
  readonly coverageSeedsMin: number;
  readonly covered: readonly string[];
  /** Of these, what may well never happen. */
  readonly rare: readonly string[];
  /** Never rejects. */
  run(options: SimOptions): Promise<SimResult>;
}

export const coreKind: SimKind = {
  name: 'core',
  seconds: 20,
  coverageSeedsMin: 1000,
  covered,
  rare: [],
  run: (options) => Promise.resolve(runCoreSim(options)),
};

export const nodeKind: SimKind = {
  name: 'node',
  seconds: 6,
  coverageSeedsMin: 500,
  covered: nodeCovered,
  rare: nodeRare,
  run: runNodeSim,
};

export const simKinds: readonly SimKind[] = [coreKind, nodeKind];
