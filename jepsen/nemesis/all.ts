/** Every nemesis by name. */
import { kill } from './kill.js';
import { membership } from './membership.js';
import { migrate } from './migrate.js';
import type { Nemesis } from './nemesis.js';
import { partition } from './partition.js';
import { pause } from './pause.js';
import { snapshot } from './snapshot.js';
import { transfer } from './transfer.js';
import { loss, slow } from './weather.js';

export const nemeses: ReadonlyMap<string, Nemesis> = new Map(
  [kill, pause, partition, loss, slow, transfer, migrate, membership, snapshot].map((nemesis) => [
    nemesis.name,
    nemesis,
  ]),
);
