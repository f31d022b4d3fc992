import { Client, credentials } from '@grpc/grpc-js';
import { service as healthService } from 'grpc-health-check';
import { expect } from 'chai';
import { QuorateClient } from '../../src/client/index.js';
import { bytes, expectEqualReplicas, leaderOf, text, withCluster } from './fixture.js';

/** The names of the services that a node reflects, among other bytes. */
async function reflected(address: string): Promise<string> {
  const client = new Client(address, credentials.createInsecure());
  const call = client.makeBidiStreamRequest(
    '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
    // ServerReflectionRequest{ list_services: "*" }
    () => Buffer.from([0x3a, 0x01, 0x2a]),
    (reply) => reply.toString('latin1'),
  );
  try {
    call.write({});
    call.end();
    let names = '';
    for await (const reply of call as AsyncIterable<string>) names += reply;
    return names;
  } finally {
    client.close();
  }
}

/** What grpc.health.v1 tells a watcher first. */
async function watchedHealth(address: string): Promise<string> {
  const watch = healthService['Watch'] ?? healthService['watch'];
  if (watch === undefined) throw new Error('no Watch in the health service');
  const client = new Client(address, credentials.createInsecure());
  const call = client.makeServerStreamRequest(
    watch.path,
    (request: object) => watch.requestSerialize(request),
    (reply: Buffer) => watch.responseDeserialize(reply) as { status: string },
    { service: '' },
  );
  call.on('error', () => undefined);
  try {
    for await (const { status } of call as AsyncIterable<{ status: string }>) return status;
    return 'ended';
  } finally {
    call.cancel();
    client.close();
  }
}

describe('a cluster whose nodes speak HTTP/2 by hand', function () {
  this.timeout(120_000);

  it('serves the client, streams, admin calls, health and reflection, and goes on without a leader that died', () =>
    withCluster({ shards: 2, flags: { http2: 'lean' } }, async (fixture) => {
      const { cluster, client } = fixture;
      const unary = new QuorateClient({ endpoints: cluster.endpoints, batching: false });
      const keys = Array.from({ length: 300 }, (_, n) => `key-${n}`);
      try {
        await Promise.all(keys.map((key) => client.put({ key: bytes(key), value: bytes(key) })));
        await Promise.all(
          keys.map((key) => unary.put({ key: bytes(key), value: bytes(`unary ${key}`) })),
        );
        const read = await Promise.all(keys.map((key) => unary.get({ key: bytes(key) })));
        expect(read.map(({ kv }) => text(kv?.value))).to.deep.equal(
          keys.map((key) => `unary ${key}`),
        );
        // A million bytes take many frames, both ways, on unary calls and on streams.
        for (const each of [client, unary]) {
          const value = Buffer.alloc(1_000_000, 'm');
          await each.put({ key: bytes('large'), value });
          const large = await each.get({ key: bytes('large') });
          expect(value.equals(large.kv?.value ?? new Uint8Array())).to.equal(true);
        }
        let scanned = 0;
        for await (const page of client.scan({ limit: 100 })) scanned += page.kvs?.length ?? 0;
        expect(scanned).to.be.greaterThan(0);
        const leader = await leaderOf(cluster);
        for (const { node, clientAddress } of cluster.nodes) {
          expect((await client.status(clientAddress)).nodeId).to.equal(node);
          expect(await watchedHealth(clientAddress)).to.equal('SERVING');
          expect(await reflected(clientAddress)).to.contain('quorate.v1.KV');
        }
        await expectEqualReplicas(fixture);
        await cluster.kill(leader);
        for (const key of keys.slice(0, 20)) {
          const { kv } = await client.get({ key: bytes(key) });
          expect(text(kv?.value)).to.equal(`unary ${key}`);
        }
      } finally {
        unary.close();
      }
    }));
});
