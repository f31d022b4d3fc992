/** Every workload by name. */
import type { Random } from '../random.js';
import { AppendWorkload } from './append.js';
import type { Workload } from './workload.js';

/** `width`: keys in use at one time. */
type Make = (random: Random, width: number) => Workload;

export const workloads: ReadonlyMap<string, Make> = new Map<string, Make>([
  ['append', (random, width) => new AppendWorkload(random, width)],
]);
