/** This project, for the race. */
import { join } from 'node:path';
import { codecOf } from '../../proto/definitions.js';
import type { GetRequest, PutRequest } from '../../proto/messages.js';
import { LocalCluster } from '../../src/cli/local-cluster.js';
import { QuorateClient } from '../../src/client/index.js';
import type { RacedStore } from './raced-store.js';

const putRequest = codecOf<PutRequest>('quorate.v1.PutRequest');
const getRequest = codecOf<GetRequest>('quorate.v1.GetRequest');

/** With its frames of HTTP/2 by hand (`--http2 lean`). */
export function startLean(directory: string): Promise<RacedStore> {
  return startQuorate(directory, 1, { http2: 'lean' });
}

export async function startQuorate(
  directory: string,
  shards = 1,
  flags: Readonly<Record<string, string>> = {},
): Promise<RacedStore> {
  const cluster = await LocalCluster.start({
    nodes: 3,
    shards,
    directory: join(directory, 'quorate'),
    basePort: 0,
    flags: { 'log-level': 'warn', ...flags },
  });
  const client = new QuorateClient({ endpoints: cluster.endpoints });
  const leader = (await cluster.leader(1)) ?? 1;
  const others = cluster.nodes.filter(({ node }) => node !== leader);
  return {
    name: 'Quorate',
    pids: cluster.nodes.map(({ node }) => cluster.pid(node) ?? 0),
    addresses: [cluster.node(leader), ...others].map(({ clientAddress }) => clientAddress),
    putPath: '/quorate.v1.KV/Put',
    getPath: '/quorate.v1.KV/Get',
    putBody: (key, value) => putRequest.encode({ key: Buffer.from(key), value }),
    getBody: (key) => getRequest.encode({ key: Buffer.from(key) }),
    put: async (key, value) => {
      await client.put({ key: Buffer.from(key), value });
    },
    // A put takes the next change number of its slot; the keys of a race are in slots of their own.
    putsApplied: async (keys) => {
      const found = await Promise.all(keys.map((key) => client.get({ key: Buffer.from(key) })));
      return found.reduce((sum, { kv }) => sum + Number(kv?.revision ?? 0), 0);
    },
    stop: async () => {
      client.close();
      await cluster.stop();
    },
  };
}
