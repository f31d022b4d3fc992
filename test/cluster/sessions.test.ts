import { expect } from 'chai';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { codecOf } from '../../proto/definitions.js';
import {
  ReadLevel,
  type BatchReply,
  type BatchRequest,
  type SessionTokenMessage,
} from '../../proto/messages.js';
import { Connections } from '../../src/client/connections.js';
import { KvError, QuorateClient, SessionToken } from '../../src/client/index.js';
import { methods } from '../../src/client/methods.js';
import { callUnary } from '../../src/client/wire.js';
import { slotOf } from '../../src/router/slot.js';
import { bytes, followerOf, leaderOf, text, withCluster, type Fixture } from './fixture.js';

const codec = codecOf<SessionTokenMessage>('quorate.v1.SessionToken');
const extension = import.meta.filename.endsWith('.ts') ? 'ts' : 'js';
const quorate = join(import.meta.dirname, `../../src/cli/quorate.${extension}`);
const key = bytes('k');

/** Runs with a client for each node alone, and one that goes to all. */
async function withClients(
  { cluster }: Fixture,
  batching: boolean,
  run: (ones: readonly QuorateClient[], all: QuorateClient) => Promise<void>,
): Promise<void> {
  const timeoutMs = 20_000;
  const of = (endpoints: readonly string[]): QuorateClient =>
    new QuorateClient({ endpoints, batching, timeoutMs });
  const ones = cluster.endpoints.map((endpoint) => of([endpoint]));
  const all = of(cluster.endpoints);
  try {
    await run(ones, all);
  } finally {
    for (const client of [...ones, all]) client.close();
  }
}

/** A token with one position made up. */
function tokenAt(clusterId: string, revision: number): SessionToken {
  const position = { slot: slotOf(key), epoch: 1, revision, logTimeMs: 0 };
  const message = codec.encode({ clusterId, positions: [position] });
  return SessionToken.parse(Buffer.from(message).toString('base64url'));
}

function clusterOf(token: SessionToken): string {
  return codec.decode(Buffer.from(String(token), 'base64url')).clusterId;
}

async function refusal(work: Promise<unknown>): Promise<KvError> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof KvError) return error;
  throw new Error(`it became ${String(error)}`);
}

describe('sessions over a cluster', function () {
  this.timeout(120_000);

  it('D24: every node answers what was written through another one just now', () =>
    withCluster({ shards: 2 }, async (fixture) => {
      for (const batching of [true, false])
        await withClients(fixture, batching, async (ones, all) => {
          const token = new SessionToken();
          for (let n = 0; n < 12; n++) {
            const here = { key: bytes(`k${n % 7}`), value: bytes(`v${n}`) };
            await ones[n % 3]?.put(here, { token });
            for (const one of ones) {
              // As another process would have it.
              const elsewhere = SessionToken.parse(String(token));
              const { kv } = await one.get({ key: here.key }, { token: elsewhere });
              expect(text(kv?.value)).to.equal(`v${n}`);
            }
          }
          const gone = { key: bytes('k1') };
          const { revision } = await all.delete(gone, { token });
          for (const one of ones) expect((await one.get(gone, { token })).found).to.equal(false);
          const counter = { key: bytes('k1'), delta: 1 };
          expect((await all.increment(counter, { token })).revision).to.be.greaterThan(revision);
          const swap = {
            compare: [{ key: bytes('k1'), value: bytes('1') }],
            then: [{ put: { key: bytes('k1'), value: bytes('swapped') } }],
          };
          await all.txn(swap, { token });
          for (const one of ones) {
            const { kv } = await one.get({ key: bytes('k1') }, { token });
            expect(text(kv?.value)).to.equal('swapped');
            const found = new Map<string | undefined, string | undefined>();
            for await (const page of one.scan({ slot: slotOf(bytes('k1')) }, { token }))
              for (const each of page.kvs ?? []) found.set(text(each.key), text(each.value));
            expect(found.get('k1')).to.equal('swapped');
          }
          const puts = Array.from({ length: 50 }, (_, n) => ({
            put: { key: bytes(`b${n}`), value: bytes(`w${n}`) },
          }));
          await all.batch(puts, { token });
          for (const one of ones) {
            const gets = puts.map(({ put }) => ({ get: { key: put.key } }));
            const results = await one.batch(gets, { token });
            expect(results.map(({ get }) => text(get?.kv?.value))).to.deep.equal(
              puts.map(({ put }) => text(put.value)),
            );
          }
        });
    }));

  it('D24: the header of a batch speaks for its operations, wherever they are carried out', () =>
    withCluster({ shards: 3 }, async ({ cluster }) => {
      const connections = new Connections();
      const batch = (endpoint: string, request: BatchRequest): Promise<BatchReply> =>
        callUnary(connections, methods.batch, request, {
          deadline: Date.now() + 20_000,
          endpoint,
        });
      const keys = Array.from({ length: 30 }, (_, n) => bytes(`batch-${n}`));
      let token: Uint8Array = new Uint8Array();
      for (const [n, endpoint] of cluster.endpoints.entries()) {
        const puts = keys.map((each) => ({ put: { key: each, value: bytes(`v${n}`) } }));
        const written = await batch(endpoint, { header: { returnToken: true }, operations: puts });
        token = written.header?.token ?? token;
        expect(codec.decode(token).positions).to.have.length(new Set(keys.map(slotOf)).size);
        const gets = keys.map((each) => ({ get: { key: each, level: ReadLevel.AT_LEAST } }));
        for (const elsewhere of cluster.endpoints) {
          const { results = [] } = await batch(elsewhere, { header: { token }, operations: gets });
          const values = results.map(({ get }) => text(get?.kv?.value));
          expect(new Set(values), `written at ${endpoint}, read at ${elsewhere}`).to.deep.equal(
            new Set([`v${n}`]),
          );
        }
      }
      connections.close();
    }));

  it('D24: a follower that has nobody to ask answers a session what it has, and no more', () =>
    withCluster({}, async (fixture) => {
      const { cluster, client } = fixture;
      const follower = await followerOf(cluster);
      const leader = await leaderOf(cluster);
      const token = new SessionToken();
      await client.put({ key, value: bytes('seen') }, { token });
      const one = new QuorateClient({ endpoints: [cluster.node(follower).clientAddress] });
      expect(text((await one.get({ key }, { token })).kv?.value)).to.equal('seen');
      for (const { node } of cluster.nodes) if (node !== follower) await cluster.kill(node);
      expect(leader).to.not.equal(follower);
      const shortly = { timeoutMs: 1500 };
      expect(text((await one.get({ key }, { token, ...shortly })).kv?.value)).to.equal('seen');
      const linearizable = { key, level: ReadLevel.LINEARIZABLE };
      const unavailable = ['KV_UNAVAILABLE', 'KV_DEADLINE'];
      expect((await refusal(one.get(linearizable, { token, ...shortly }))).code).to.be.oneOf(
        unavailable,
      );
      const further = { token: tokenAt(clusterOf(token), 1000), ...shortly };
      expect((await refusal(one.get({ key }, further))).code).to.be.oneOf(unavailable);
      one.close();
    }));

  it('D24: a token of another cluster, or of a state that was lost, is refused, also by writes', () =>
    withCluster({ nodes: 1 }, async ({ client }) => {
      const own = new SessionToken();
      await client.put({ key, value: bytes('1') }, { token: own });
      const foreign = { token: tokenAt('elsewhere', 1) };
      const attempts = [
        () => client.get({ key }, foreign),
        () => client.put({ key, value: bytes('2') }, foreign),
        () => client.txn({ then: [{ put: { key, value: bytes('2') } }] }, foreign),
        () => client.scan({}, foreign).next(),
        () => client.get({ key }, { token: tokenAt(clusterOf(own), 1000) }),
      ];
      for (const attempt of attempts)
        expect((await refusal(attempt())).code).to.equal('KV_TOKEN_MISMATCH');
      // In one batch: the one that is refused takes nobody along.
      const ahead = { token: tokenAt(clusterOf(own), 1000) };
      const together = [client.get({ key }, ahead), client.get({ key }, { token: own })];
      const [lost, found] = await Promise.allSettled(together);
      expect([lost?.status, found?.status]).to.deep.equal(['rejected', 'fulfilled']);
      expect(text((await client.get({ key })).kv?.value)).to.equal('1');
    }));

  it('D24: the command line hands a session from one process to the next', () =>
    withCluster({ nodes: 1 }, async ({ cluster }) => {
      const run = (...args: string[]): Promise<Record<string, unknown>> =>
        new Promise((resolve, reject) => {
          const env = { ...process.env, QUORATE_ENDPOINTS: cluster.endpoints.join(',') };
          const child = spawn(
            process.execPath,
            [...process.execArgv, quorate, 'kv', ...args, '-o', 'json'],
            { env, stdio: ['ignore', 'pipe', 'inherit'] },
          );
          let out = '';
          child.stdout.on('data', (piece: Buffer) => (out += piece.toString()));
          child.on('error', reject);
          child.on('close', () => {
            resolve(JSON.parse(out) as Record<string, unknown>);
          });
        });
      let token = 'new';
      for (let n = 1; n <= 2; n++) {
        ({ token } = (await run('incr', 'n', '--token', token)) as { token: string });
        const seen = await run('get', 'n', '--level', 'at-least', '--token', token);
        expect(seen).to.include({ value: String(n) });
        expect(seen['token']).to.be.a('string');
      }
    }));
});
