/** etcd from Debian's package etcd-server, as it comes: fsync on, its own defaults. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import protobuf from 'protobufjs';
import { freePort } from './free-port.js';
import type { RacedStore } from './raced-store.js';

const host = '127.0.0.1';
const startMsMax = 30_000;
const stopMsMax = 10_000;
const pollMs = 50;

const { Writer } = protobuf;

interface Member {
  readonly client: string;
  readonly peer: string;
  readonly process: ChildProcess;
}

/** Of mvccpb.KeyValue, RangeRequest and PutRequest only what is used here. */
function message(key: string, value?: Uint8Array): Uint8Array {
  const writer = Writer.create().uint32(10).bytes(Buffer.from(key));
  return (value === undefined ? writer : writer.uint32(18).bytes(value)).finish();
}

async function ask(address: string, path: string, body: object): Promise<Record<string, unknown>> {
  const response = await fetch(`http://${address}/v3${path}`, {
    method: 'POST',
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`etcd answers ${response.status} to ${path}`);
  // etcd's own gateway: a JSON object.
  return (await response.json()) as Record<string, unknown>;
}

const base64 = (text: string | Uint8Array): string => Buffer.from(text).toString('base64');

async function startMembers(directory: string): Promise<Member[]> {
  const ports = await Promise.all(Array.from({ length: 6 }, freePort));
  const peers = [3, 4, 5].map((n) => `http://${host}:${ports[n]}`);
  const cluster = peers.map((peer, n) => `n${n}=${peer}`).join(',');
  return peers.map((peer, n) => {
    const client = `${host}:${ports[n]}`;
    const data = join(directory, `etcd-${n}`);
    mkdirSync(data, { recursive: true });
    const log = openSync(join(directory, `etcd-${n}.log`), 'a');
    const child = spawn(
      'etcd',
      [
        ...['--name', `n${n}`, '--data-dir', data, '--logger', 'zap', '--log-level', 'error'],
        ...[
          '--listen-client-urls',
          `http://${client}`,
          '--advertise-client-urls',
          `http://${client}`,
        ],
        ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer],
        ...['--initial-cluster', cluster, '--initial-cluster-state', 'new'],
      ],
      { stdio: ['ignore', log, log] },
    );
    return { client, peer, process: child };
  });
}

interface MemberStatus {
  readonly leader: string;
  readonly self: string;
}

async function statusOf(address: string): Promise<MemberStatus> {
  const { leader = '0', header } = await ask(address, '/maintenance/status', {});
  const { member_id: self = '' } = header as { readonly member_id?: string };
  return { leader: String(leader), self };
}

/** The leader first, once all members know one. */
async function inOrder(members: readonly Member[]): Promise<readonly string[]> {
  const deadline = performance.now() + startMsMax;
  let last: unknown;
  while (performance.now() < deadline) {
    try {
      const all = await Promise.all(members.map(({ client }) => statusOf(client)));
      const first = all.findIndex(({ leader, self }) => leader === self);
      const addresses = members.map(({ client }) => client);
      if (first >= 0 && all.every(({ leader }) => leader === all[first]?.self))
        return [...addresses.slice(first), ...addresses.slice(0, first)];
    } catch (error) {
      last = error;
    }
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
  throw new Error('etcd has no leader', { cause: last });
}

async function stop(members: readonly Member[]): Promise<void> {
  await Promise.all(
    members.map(async ({ process: child }) => {
      if (child.exitCode !== null) return;
      const exited = once(child, 'exit');
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), stopMsMax);
      await exited;
      clearTimeout(timer);
    }),
  );
}

export async function startEtcd(directory: string): Promise<RacedStore> {
  const members = await startMembers(directory);
  let addresses: readonly string[];
  try {
    addresses = await inOrder(members);
  } catch (error) {
    await stop(members);
    throw error;
  }
  const [leader = ''] = addresses;
  return {
    name: 'etcd',
    pids: members.map(({ process: child }) => child.pid ?? 0),
    addresses,
    putPath: '/etcdserverpb.KV/Put',
    getPath: '/etcdserverpb.KV/Range',
    putBody: message,
    getBody: (key) => message(key),
    put: async (key, value) => {
      await ask(leader, '/kv/put', { key: base64(key), value: base64(value) });
    },
    // The store's revision: one more for each put, of whatever key.
    putsApplied: async () => {
      const { header } = await ask(leader, '/kv/range', { key: base64('no such key') });
      return Number((header as { readonly revision?: string }).revision);
    },
    stop: () => stop(members),
  };
}
