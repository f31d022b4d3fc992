import { expect } from 'chai';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { QuorateClient } from '../../src/client/index.js';
import type { KvError } from '../../src/errors.js';
import { bytes, errorOf, until, withNodes } from './fake-cluster.js';

const extension = import.meta.filename.endsWith('.ts') ? 'ts' : 'js';
const program = join(import.meta.dirname, `closing-program.${extension}`);

type Call = (client: QuorateClient, endpoint: string) => Promise<unknown>;

const key = bytes('k');
const value = bytes('v');
const calls: Readonly<Record<string, Call>> = {
  get: (client) => client.get({ key }),
  put: (client) => client.put({ key, value }),
  'large put': (client) => client.put({ key, value: Buffer.alloc(2 * 1024 * 1024) }),
  increment: (client) => client.increment({ key, delta: 1 }),
  batch: (client) => client.batch([{ put: { key, value } }]),
  txn: (client) => client.txn({ then: [{ put: { key, value } }] }),
  scan: (client) => client.scan({}).next(),
  topology: (client) => client.topology(),
  status: (client, endpoint) => client.status(endpoint),
  changeCluster: (client) => client.changeCluster({ kind: 'drain', node: 1 }),
  transferLeader: (client) => client.transferLeader({ groupId: 1 }),
};

const isRead = (name: string): boolean => ['get', 'scan', 'topology'].includes(name);

for (const batching of [true, false])
  describe(`closing a client that sends ${batching ? 'batches' : 'single calls'}`, () => {
    it('ends everything that is under way with one clear error, and refuses what comes later', () =>
      withNodes({ batching, timeoutMs: 40_000 }, async ({ client, node }) => {
        await client.put({ key, value });
        node.onBatch = () => undefined;
        node.onUnary = () => 'silence';
        const before = node.unary.length;
        const begun = Object.entries(calls).map(([name, call]) => ({
          name,
          error: errorOf(call(client, node.endpoint)),
        }));
        await until('the calls', () => node.unary.length - before >= 6);
        client.close();
        const check = ({ code, message }: KvError, name: string): void => {
          expect([code, message], name).to.deep.equal(['KV_CANCELLED', 'the client was closed']);
        };
        for (const { name, error } of begun) {
          check(await error, name);
          if (isRead(name)) expect((await error).outcome, name).to.equal('notApplied');
        }
        for (const [name, call] of Object.entries(calls)) {
          const error = await errorOf(call(client, node.endpoint));
          check(error, `${name} afterwards`);
          expect(error.outcome, `${name} afterwards`).to.equal('notApplied');
        }
        client.close();
      }));

    it('ends a call that pauses before its next attempt, and one that waits for the time', () =>
      withNodes({ batching, timeoutMs: 40_000 }, async ({ client, node }) => {
        node.kill();
        const begun = Object.values(calls).map((call) => errorOf(call(client, node.endpoint)));
        await errorOf(client.get({ key }, { timeoutMs: 50 }));
        client.close();
        for (const error of begun.slice(0, -4)) expect((await error).code).to.equal('KV_CANCELLED');
      }));

    it('goes on with no scan', () =>
      withNodes({ batching }, async ({ client, node, store }) => {
        for (let n = 0; n < 10; n++) store.values.set(`k${n}`, 'v');
        node.pageLengthMax = 2;
        const scan = client.scan({});
        await scan.next();
        client.close();
        expect((await errorOf(scan.next())).code).to.equal('KV_CANCELLED');
      }));
  });

describe('a process with a client', () => {
  /** What it wrote, and how long it ran after that. */
  const run = async (
    ...args: string[]
  ): Promise<{ readonly code: unknown; readonly out: string; readonly lingeredMs: number }> => {
    const child = spawn(process.execPath, [...process.execArgv, program, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let out = '';
    let wroteAt = 0;
    child.stdout.on('data', (piece: Buffer) => {
      out += piece.toString();
      wroteAt = performance.now();
    });
    const timer = setTimeout(() => child.kill('SIGKILL'), 60_000);
    const [code] = (await once(child, 'close')) as unknown[];
    clearTimeout(timer);
    return { code, out, lingeredMs: performance.now() - wroteAt };
  };

  it('ends by itself once the client is closed, whatever was under way', () =>
    withNodes({}, async ({ node }) => {
      node.onBatch = (call) => {
        // The first two are answered: what follows hangs.
        if (call.number < 2) call.answer();
      };
      node.onUnary = ({ method }) => (method === 'Get' ? undefined : 'silence');
      const { code, out, lingeredMs } = await run('close', node.endpoint);
      expect([code, out.trim().split(' ')]).to.deep.equal([
        0,
        ['KV_CANCELLED', 'KV_CANCELLED', 'KV_CANCELLED', 'KV_CANCELLED'],
      ]);
      expect(lingeredMs).to.be.below(4000);
    })).timeout(90_000);

  it('ends by itself without that too, when no call is under way and its streams are idle', () =>
    withNodes({}, async ({ node }) => {
      const { code, out } = await run('idle', node.endpoint);
      expect([code, out.trim()]).to.deep.equal([0, 'idle']);
    })).timeout(90_000);
});
