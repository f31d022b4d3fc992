/**
 * Clocks of nodes that are wrong, with libfaketime: the wall clock steps, or all time of a node runs
 * slower or faster than that of the others, by less than leases allow for. Never that of the clients,
 * which stamps the history.
 */
import { readdirSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { join } from 'node:path';
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
import { sleep, within } from '../shell.js';

const steps = ['+7200', '-7200', '+45', '-45', '+2', '-2'] as const;
/**
 * A lease lasts 60 % of an election timeout. With the holder at 0.85 and a follower at 1.2 it still ends
 * before anybody else can lead: 0.6 / 0.85 < 1 / 1.2.
 */
const rates = [0.85, 0.9, 1.1, 1.2] as const;

const base = {
  holdMs: [3000, 9000] as const,
  gapMs: [3000, 9000] as const,
  probe: () =>
    Promise.resolve(
      library() === undefined ? 'no libfaketime (Debian package faketime)' : undefined,
    ),
  environmentOf: (folder: string, node: number): Readonly<Record<string, string>> => {
    setClock(folder, node, '+0');
    return {
      LD_PRELOAD: library() ?? '',
      FAKETIME_TIMESTAMP_FILE: clockFile(folder, node),
      FAKETIME_CACHE_DURATION: '1',
      // Steps are of the wall clock alone: the kernel sets no other.
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      DONT_FAKE_MONOTONIC: '1',
    };
  },
};

export const clockStep: Nemesis = { ...base, name: 'clock-step', inject: step };
export const clockRate: Nemesis = { ...base, name: 'clock-rate', inject: skew };

async function step(field: Field, random: Random): Promise<Fault | undefined> {
  const { cluster, folder } = field;
  const [node] = take(field, await candidates(field, random), 1);
  if (node === undefined) return undefined;
  const by = random.pick(steps);
  setClock(folder, node, by);
  const isOff = async (): Promise<boolean> => {
    const shown = await wallClockOf(cluster.network.addressesOf(node).http);
    return shown !== undefined && Math.abs(shown - Date.now()) > (Math.abs(Number(by)) * 1000) / 2;
  };
  const wasOff = await within(4000, isOff, 200);
  return {
    what: `wall clock steps by ${by} s`,
    target: namesOf([node]),
    heal: () => {
      setClock(folder, node, '+0');
      giveBack(field, [node]);
      return Promise.resolve();
    },
    verifyEffect: () => Promise.resolve(wasOff),
  };
}

/** The rate of a process is settled when it starts. */
async function skew(field: Field, random: Random): Promise<Fault | undefined> {
  const { cluster } = field;
  const [node] = take(field, await candidates(field, random), 1);
  if (node === undefined) return undefined;
  const rate = random.pick(rates);
  await cluster.kill(node);
  cluster.startNode(node, {
    FAKETIME: `+0 x${rate}`,
    FAKETIME_TIMESTAMP_FILE: '/nonexistent',
    FAKETIME_DONT_FAKE_MONOTONIC: '0',
    DONT_FAKE_MONOTONIC: '0',
  });
  await within(15_000, async () => (await cluster.status(node)) !== undefined, 100);
  const measured = await measuredRate(field, node);
  return {
    what: `time runs at ${rate}`,
    target: namesOf([node]),
    heal: async () => {
      await cluster.kill(node);
      cluster.startNode(node);
      giveBack(field, [node]);
    },
    verifyEffect: () =>
      Promise.resolve(measured !== undefined && Math.abs(measured - rate) < Math.abs(1 - rate) / 2),
  };
}

/** How fast the node's uptime grows. */
async function measuredRate({ cluster }: Field, node: number): Promise<number | undefined> {
  const look = async (): Promise<readonly [number, number] | undefined> => {
    const reply = await cluster.status(node);
    return reply === undefined ? undefined : [reply.uptimeMs, performance.now()];
  };
  const first = await look();
  await sleep(2000);
  const second = await look();
  if (first === undefined || second === undefined) return undefined;
  return (second[0] - first[0]) / (second[1] - first[1]);
}

async function candidates(field: Field, random: Random): Promise<readonly number[]> {
  const leader = random.chance(0.6) ? await someLeader(field, random) : undefined;
  const wanted = leader === undefined ? random.shuffled(field.nodes) : [leader];
  return wanted.filter((node) => field.cluster.isRunning(node));
}

/** From the date in the head of an answer of its HTTP port; undefined: no answer. */
function wallClockOf(address: string): Promise<number | undefined> {
  return new Promise((resolve) => {
    const request = get(
      `http://${address}/healthz`,
      { timeout: 2000, agent: false },
      (response) => {
        response.resume();
        resolve(Date.parse(response.headers.date ?? ''));
      },
    );
    request.on('timeout', () => request.destroy());
    request.on('error', () => {
      resolve(undefined);
    });
  });
}

function clockFile(folder: string, node: number): string {
  return join(folder, `clock-${node}`);
}

function setClock(folder: string, node: number, offset: string): void {
  writeFileSync(clockFile(folder, node), `${offset}\n`);
}

/** Debian has it in a folder of the machine's architecture. */
function library(): string | undefined {
  const folders = ['/usr/lib', '/usr/local/lib'].flatMap((root) =>
    readNames(root).map((name) => join(root, name, 'faketime')),
  );
  const found = [...folders, '/usr/lib/faketime', '/usr/local/lib/faketime'].find((folder) =>
    readNames(folder).includes('libfaketimeMT.so.1'),
  );
  return found === undefined ? undefined : join(found, 'libfaketimeMT.so.1');
}

function readNames(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
