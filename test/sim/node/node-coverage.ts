/** What is counted in runs of whole nodes. */
import { nodeFaults, nodeOperations } from './plan.js';

const occurrences = [
  'seeds',
  'restart',
  'engine rolled back',
  'sync failed',
  'node stopped itself',
  'damage found',
  'node joined',
  'skewed clocks',
  'leases',
  'frame lost',
  'held back for long',
  'call hung',
  'call broke',
  'snapshot sent',
  'snapshot broken',
  'snapshot installed',
  'leader elected',
  'log compacted',
  'slot handed over',
  'slots frozen',
  'import ended without the slot',
  'migration done',
  'migration cancelled by the source',
  'migration failed',
  'replica removed from its node',
  'members changed',
  'states compared under load',
  'write ok',
  'write not applied',
  'write unknown',
  'write tried again',
  'condition not met',
  'read ok',
  'read failed',
  'scan ok',
  'scan over several pages',
  'batch',
  'left its batch to try again',
  'asked a pin',
  'pin named by an error',
  'pin filled',
  'pin emptied',
  'pin handed over',
  'shard split to the end',
  'shard merged to the end',
  'history linearizable',
] as const;

/** Counted as well, but nothing is wrong with a run in which it never happens. */
export const nodeRare = ['history undecided'] as const;

export const nodeCovered = [
  ...occurrences,
  ...nodeRare,
  ...nodeFaults.map((fault) => `fault: ${fault}` as const),
  ...nodeOperations.map((operation) => `operation: ${operation}` as const),
] as const;

export type NodeCovered = (typeof nodeCovered)[number];
