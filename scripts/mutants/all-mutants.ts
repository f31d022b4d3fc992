import type { Mutant } from './mutant.js';
import { raftMutants } from './raft-mutants.js';
import { serviceMutants } from './service-mutants.js';
import { storageMutants } from './storage-mutants.js';

/** Each section spread over all slices. */
export const allMutants: readonly Mutant[] = [
  ...raftMutants.map((bug) => ({ ...bug, section: 'raft' }) as const),
  ...storageMutants.map((bug) => ({ ...bug, section: 'storage' }) as const),
  ...serviceMutants.map((bug) => ({ ...bug, section: 'service' }) as const),
];
