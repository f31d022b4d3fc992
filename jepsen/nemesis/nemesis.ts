/** What breaks things: every fault says whether it can be made here, and whether it did anything. */
import type { Cluster } from '../cluster.js';
import { KvError } from '../../src/client/index.js';
import type { Random } from '../random.js';
import type { Volumes } from '../volumes.js';

/** Where faults are made. */
export interface Field {
  readonly cluster: Cluster;
  readonly nodes: readonly number[];
  /**
   * Nodes whose process or disk somebody is breaking just now: at most one does at a time. Links are
   * nobody's: they break over everything else.
   */
  readonly taken: Set<number>;
  /** Keys that clients use just now. */
  readonly keys: () => readonly string[];
  /** A folder of the run, for compiled programs and control files. */
  readonly folder: string;
  /** Of the kind that a power cut can be played on, or why there are none. */
  readonly volumes: Volumes | string;
  /** What no node may do, and one did: noticed while a fault was made. */
  readonly violations: string[];
}

export interface Fault {
  /** In words, without the target. */
  readonly what: string;
  /** Nodes, links or groups, in words. */
  readonly target: string;
  heal(): Promise<void>;
  /** Asked after healing. */
  verifyEffect(): Promise<boolean>;
}

export interface Nemesis {
  readonly name: string;
  /** How long a fault lasts, ms. */
  readonly holdMs: readonly [number, number];
  /** How long it is quiet between two of them, ms. */
  readonly gapMs: readonly [number, number];
  /** True: nothing else may be broken meanwhile. */
  readonly isAlone?: boolean;
  /** Why it cannot be done on this machine; undefined: it can. Asked once, before the nodes start. */
  probe(field: Pick<Field, 'folder'> & Surroundings): Promise<string | undefined>;
  /** What the process of every node needs to have in its environment; LD_PRELOAD is joined. */
  environmentOf?(folder: string, node: number, data: string): Readonly<Record<string, string>>;
  /** Undefined: there is nobody to do it to just now. */
  inject(field: Field, random: Random): Promise<Fault | undefined>;
}

/** What is known before there are nodes. */
export interface Surroundings {
  readonly network: Cluster['network'];
  readonly volumes: Volumes | string;
}

/** Takes `count` nodes that nobody is breaking, in the order given; fewer when there are fewer. */
export function take(field: Field, candidates: readonly number[], count: number): number[] {
  const free = candidates.filter((node) => !field.taken.has(node)).slice(0, count);
  for (const node of free) field.taken.add(node);
  return free;
}

export function giveBack(field: Field, nodes: readonly number[]): void {
  for (const node of nodes) field.taken.delete(node);
}

/** A node that leads some group, if any does: mostly the leader of a shard. */
export async function someLeader(field: Field, random: Random): Promise<number | undefined> {
  const leaders = [...(await field.cluster.leaders()).values()];
  return leaders.length === 0 ? undefined : random.pick(leaders);
}

/**
 * Says something to the cluster that it may refuse, or be too broken to hear; undefined then: that is no
 * fault of the run, but the fault has had no effect.
 */
export async function attempt<T>(say: () => Promise<T>): Promise<T | undefined> {
  try {
    return await say();
  } catch (error) {
    if (error instanceof KvError) return undefined;
    throw error;
  }
}

export const namesOf = (nodes: readonly number[]): string =>
  nodes.map((node) => `node ${node}`).join(', ');
