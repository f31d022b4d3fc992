/** Every workload by name. */
import type { Random } from '../random.js';
import { AppendWorkload } from './append.js';
import { BankWorkload } from './bank.js';
import { CounterWorkload } from './counter.js';
import { RegisterWorkload } from './register.js';
import { ScanWorkload } from './scan.js';
import { SetWorkload } from './set.js';
import type { Workload } from './workload.js';

/** `width`: keys in use at one time. */
type Make = (random: Random, width: number) => Workload;

export const workloads: ReadonlyMap<string, Make> = new Map<string, Make>([
  ['append', (random, width) => new AppendWorkload(random, width)],
  ['set', (random, width) => new SetWorkload(random, width)],
  ['register', (random, width) => new RegisterWorkload(random, width)],
  ['counter', (random, width) => new CounterWorkload(random, width)],
  ['bank', (random, width) => new BankWorkload(random, width)],
  ['scan', (random, width) => new ScanWorkload(random, width)],
]);
