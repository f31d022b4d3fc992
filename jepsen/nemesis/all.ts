/** Every nemesis by name. */
import { kill } from './kill.js';
import type { Nemesis } from './nemesis.js';
import { partition } from './partition.js';
import { pause } from './pause.js';

export const nemeses: ReadonlyMap<string, Nemesis> = new Map(
  [kill, pause, partition].map((nemesis) => [nemesis.name, nemesis]),
);
