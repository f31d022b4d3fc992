/** Every nemesis by name. */
import { clockRate, clockStep } from './clock.js';
import { damage } from './damage.js';
import { diskError, diskFull, slowDisk } from './disk.js';
import { kill } from './kill.js';
import { membership } from './membership.js';
import { migrate } from './migrate.js';
import type { Nemesis } from './nemesis.js';
import { partition } from './partition.js';
import { pause } from './pause.js';
import { power } from './power.js';
import { snapshot } from './snapshot.js';
import { transfer } from './transfer.js';
import { loss, slow } from './weather.js';

const all: readonly Nemesis[] = [
  kill,
  pause,
  partition,
  loss,
  slow,
  transfer,
  migrate,
  membership,
  snapshot,
  power,
  diskError,
  diskFull,
  slowDisk,
  damage,
  clockStep,
  clockRate,
];

export const nemeses: ReadonlyMap<string, Nemesis> = new Map(
  all.map((nemesis) => [nemesis.name, nemesis]),
);
