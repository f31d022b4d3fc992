/** A cluster of real processes for one test, with its data directory and clean-up. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LocalCluster } from '../../src/cli/local-cluster.js';
import { QuorateClient } from '../../src/client/index.js';

export const shard = 1;

export interface Fixture {
  readonly cluster: LocalCluster;
  readonly client: QuorateClient;
  readonly directory: string;
}

/** Quick elections: the tests kill leaders on purpose. */
const quickFlags = {
  'tick-ms': '20',
  'election-ticks': '12',
  'heartbeat-ticks': '3',
  'log-level': 'info',
};

/** Runs with a cluster; stops it and removes its data afterwards, also when the test failed. */
export async function withCluster(
  options: {
    readonly nodes?: number;
    readonly shards?: number;
    /** Of each shard. */
    readonly replicas?: number;
    readonly flags?: Readonly<Record<string, string>>;
  },
  run: (fixture: Fixture) => Promise<void>,
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'quorate-test-'));
  let cluster: LocalCluster | undefined;
  let client: QuorateClient | undefined;
  try {
    cluster = await LocalCluster.start({
      nodes: options.nodes ?? 3,
      shards: options.shards ?? 1,
      ...(options.replicas === undefined ? {} : { replicas: options.replicas }),
      directory,
      basePort: 0,
      flags: { ...quickFlags, ...options.flags },
    });
    client = new QuorateClient({ endpoints: cluster.endpoints, timeoutMs: 20_000 });
    await run({ cluster, client, directory });
  } finally {
    client?.close();
    await cluster?.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

export const bytes = (text: string): Uint8Array => Buffer.from(text, 'utf8');

export function text(value: Uint8Array | undefined): string | undefined {
  return value === undefined ? undefined : Buffer.from(value).toString('utf8');
}

/** The leader of the shard; throws when there is none. */
export async function leaderOf(cluster: LocalCluster): Promise<number> {
  const leader = await cluster.leader(shard);
  if (leader === undefined) throw new Error('the shard has no leader');
  return leader;
}

/** A node that does not lead. */
export async function followerOf(cluster: LocalCluster): Promise<number> {
  const leader = await leaderOf(cluster);
  const follower = cluster.nodes.find((node) => node.node !== leader);
  if (follower === undefined) throw new Error('there is no follower');
  return follower.node;
}

/** Waits until the replicas of all running nodes have applied the same index, and compares them. */
export async function expectEqualReplicas({ cluster, client }: Fixture): Promise<string> {
  let hashes = new Set<string>();
  await cluster.waitFor('equal replica hashes', 20_000, async () => {
    const replies = await Promise.all(
      cluster.nodes.map((node) => client.replicaHash(node.clientAddress, { groupId: shard })),
    );
    hashes = new Set(replies.map((reply) => reply.hash));
    const indexes = new Set(replies.map((reply) => reply.appliedIndex));
    return hashes.size === 1 && indexes.size === 1;
  });
  return [...hashes].join();
}
