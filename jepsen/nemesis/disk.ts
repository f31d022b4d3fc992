/**
 * Disks that fail, fill up or crawl, through a shim that is preloaded into every node. A node whose write
 * or sync has failed must stop: who goes on would acknowledge what is not there.
 */
import { closeSync, existsSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { compile, nativePath } from '../native.js';
import {
  giveBack,
  namesOf,
  someLeader,
  take,
  type Fault,
  type Field,
  type Nemesis,
} from './nemesis.js';
import type { Random } from '../random.js';
import { within } from '../shell.js';

/** Until a node whose disk has failed must have stopped. */
const stopMsMax = 10_000;

/** Nothing is acknowledged by these files: a node goes on without them (src/README.md, "When things break"). */
const harmless = /\/(topology|identity)\.json\.new failed$/;

/** The fields of the control file, as in native/bad-disk.c. */
export interface Badness {
  readonly writeError: number;
  readonly syncError: number;
  readonly syncDelayUs: number;
  /** Calls that fail; -1: all. */
  readonly left: number;
}

export const well: Badness = { writeError: 0, syncError: 0, syncDelayUs: 0, left: 0 };
const { EIO, ENOSPC } = constants.errno;

/** Of every nemesis that the shim makes. */
export const badDisk = {
  probe: ({ folder }: { readonly folder: string }) => compile(folder, 'bad-disk'),
  environmentOf: (folder: string, node: number, data: string) => {
    steer(folder, node, well);
    return {
      LD_PRELOAD: nativePath(folder, 'bad-disk'),
      BAD_DISK_CONTROL: controlFile(folder, node),
      BAD_DISK_DATA: data,
      BAD_DISK_DIARY: diaryFile(folder, node),
      // Calls that go through io_uring are not seen by the shim.
      UV_USE_IO_URING: '0',
    };
  },
};

export const diskError: Nemesis = {
  ...badDisk,
  name: 'disk-error',
  holdMs: [0, 2000],
  gapMs: [5000, 12_000],
  inject: (field, random) => {
    const onSync = random.chance(0.5);
    const left = random.pick([1, -1]);
    const error = onSync ? { ...well, syncError: EIO, left } : { ...well, writeError: EIO, left };
    return fail(field, random, error, `${onSync ? 'syncs' : 'writes'} fail (EIO)`);
  },
};

export const diskFull: Nemesis = {
  ...badDisk,
  name: 'disk-full',
  holdMs: [0, 2000],
  gapMs: [5000, 12_000],
  inject: (field, random) =>
    fail(field, random, { ...well, writeError: ENOSPC, left: -1 }, 'writes find no space (ENOSPC)'),
};

export const slowDisk: Nemesis = {
  ...badDisk,
  name: 'slow-disk',
  holdMs: [1000, 6000],
  gapMs: [2000, 8000],
  inject: slowDown,
};

async function slowDown(field: Field, random: Random): Promise<Fault | undefined> {
  const [node] = take(field, await victims(field, random), 1);
  if (node === undefined) return undefined;
  const { folder } = field;
  const before = touched(folder, node);
  const ms = random.pick([20, 100, 400]);
  steer(folder, node, { ...well, syncDelayUs: ms * 1000 });
  return {
    what: `syncs take ${ms} ms`,
    target: namesOf([node]),
    heal: () => {
      steer(folder, node, well);
      giveBack(field, [node]);
      return Promise.resolve();
    },
    verifyEffect: () => Promise.resolve(touched(folder, node) > before),
  };
}

async function fail(
  field: Field,
  random: Random,
  badness: Badness,
  what: string,
): Promise<Fault | undefined> {
  const [node] = take(field, await victims(field, random), 1);
  if (node === undefined) return undefined;
  const { cluster, folder, violations } = field;
  const before = touched(folder, node);
  const toldBefore = failuresOf(folder, node).length;
  const isHit = (): boolean => touched(folder, node) > before;
  const failures = (): readonly string[] => failuresOf(folder, node).slice(toldBefore);
  cluster.expectEnd(node, true);
  steer(folder, node, badness);
  return {
    what,
    target: namesOf([node]),
    heal: async () => {
      await within(2000, isHit);
      const mustStop = (): boolean => failures().some((line) => !harmless.test(line));
      await within(mustStop() ? stopMsMax : 0, () => !cluster.isRunning(node));
      if (mustStop() && cluster.isRunning(node))
        violations.push(`node ${node} goes on though its disk failed: ${failures().join('; ')}`);
      steer(folder, node, well);
      await cluster.kill(node);
      cluster.expectEnd(node, false);
      cluster.startNode(node);
      giveBack(field, [node]);
    },
    verifyEffect: () => Promise.resolve(isHit()),
  };
}

async function victims(field: Field, random: Random): Promise<readonly number[]> {
  const leader = random.chance(0.5) ? await someLeader(field, random) : undefined;
  const wanted = leader === undefined ? random.shuffled(field.nodes) : [leader];
  return wanted.filter((node) => field.cluster.isRunning(node));
}

function diaryFile(folder: string, node: number): string {
  return join(folder, `bad-disk-${node}.txt`);
}

/** Which calls failed, on which files. */
function failuresOf(folder: string, node: number): readonly string[] {
  const diary = diaryFile(folder, node);
  return existsSync(diary) ? readFileSync(diary, 'utf8').split('\n').filter(Boolean) : [];
}

function controlFile(folder: string, node: number): string {
  return join(folder, `bad-disk-${node}`);
}

/** Written in place: the node has it mapped. The count of what was touched stays. */
export function steer(folder: string, node: number, badness: Badness): void {
  const path = controlFile(folder, node);
  const { writeError, syncError, syncDelayUs, left } = badness;
  const fields = new Int32Array([writeError, syncError, syncDelayUs, left]);
  writeFileSync(path, '', { flag: 'a' });
  const file = openSync(path, 'r+');
  if (readFileSync(path).byteLength === 0) writeSync(file, new Uint8Array(20));
  writeSync(file, new Uint8Array(fields.buffer), 0, fields.byteLength, 0);
  closeSync(file);
}

function touched(folder: string, node: number): number {
  return readFileSync(controlFile(folder, node)).readInt32LE(16);
}
