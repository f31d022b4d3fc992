import { expect } from 'chai';
import type { PinInfo } from '../../proto/messages.js';
import type { KvError, QuorateClient } from '../../src/client/index.js';
import { Connections } from '../../src/client/connections.js';
import { methods } from '../../src/client/methods.js';
import { asKvError } from '../../src/client/senders.js';
import { callUnary } from '../../src/client/wire.js';
import { slotCount, slotOf } from '../../src/router/slot.js';
import { bytes, text, withCluster, type Fixture } from './fixture.js';
import { ended, migrate, ownerOf } from './migrating.js';
import { QuorateCommand } from './quorate-command.js';

const teamKeys = ['a', 'b', 'c', 'd', 'e'].map((name) => `{team}${name}`);
/** Of one hash slot with 'busy': they stay. */
const besideKeys = ['x', 'y'].map((name) => `{busy}${name}`);
const counters = ['busy', ...teamKeys, ...besideKeys, 'far', '{teams}z'];

/** Increments of every counter, one after the other, until it is stopped; none may fail. */
class Counting {
  readonly counts = new Map<string, number>();
  readonly failures: unknown[] = [];
  private readonly client: QuorateClient;
  private readonly running: Promise<unknown>;
  private stopped = false;

  constructor(client: QuorateClient) {
    this.client = client;
    this.running = Promise.all(counters.map((key) => this.count(key)));
  }

  private async count(key: string): Promise<void> {
    while (!this.stopped) {
      try {
        await this.client.increment({ key: bytes(key), delta: 1 }, { timeoutMs: 45_000 });
        this.counts.set(key, (this.counts.get(key) ?? 0) + 1);
      } catch (error) {
        this.failures.push(error);
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await this.running;
  }

  /** Until each of them has been counted up again. */
  async goesOn({ cluster }: Fixture): Promise<void> {
    const before = new Map(this.counts);
    await cluster.waitFor('every counter goes on', 60_000, () =>
      Promise.resolve(
        counters.every((key) => (this.counts.get(key) ?? 0) > (before.get(key) ?? 0)),
      ),
    );
  }
}

const base64Of = (key: string): string => Buffer.from(key).toString('base64');

async function pinsOf(client: QuorateClient): Promise<readonly PinInfo[]> {
  return (await client.topology({ timeoutMs: 45_000 })).pins;
}

async function pinTo(
  { client, cluster }: Fixture,
  named: { readonly key: string; readonly isPrefix: boolean; readonly shard: number },
  meanwhile: () => Promise<void>,
): Promise<PinInfo> {
  const key = bytes(named.key);
  await client.changeCluster({ ...named, kind: 'pinKeys', key: base64Of(named.key) });
  await meanwhile();
  let found: PinInfo | undefined;
  await cluster.waitFor(`${named.key} is at shard ${named.shard}`, 60_000, async () => {
    found = (await pinsOf(client)).find((pin) => Buffer.compare(pin.key, key) === 0);
    return found?.state === 'pinned' && found.shardId === named.shard;
  });
  if (found === undefined) throw new Error('no pin');
  return found;
}

async function restartLeader({ cluster }: Fixture, group: number): Promise<void> {
  const leader = await cluster.leader(group);
  if (leader === undefined) return;
  await cluster.kill(leader);
  cluster.startNode(leader);
}

/** What the nodes answer that do not lead the pin's shard, to a client with an old map. */
async function staleAnswers({ cluster }: Fixture, key: string): Promise<readonly KvError[]> {
  const connections = new Connections();
  const errors: KvError[] = [];
  for (const { clientAddress: endpoint } of cluster.nodes) {
    const request = { key: bytes(key), delta: 0, header: { redirect: true, mapVersion: 1 } };
    const deadline = Date.now() + 5000;
    await callUnary(connections, methods.increment, request, { endpoint, deadline }).catch(
      (error: unknown) => errors.push(asKvError(error)),
    );
  }
  connections.close();
  return errors;
}

async function scanned(client: QuorateClient, prefix = ''): Promise<readonly string[]> {
  const found: string[] = [];
  for await (const { kvs } of client.scan({ prefix: bytes(prefix), limit: 0, pageBytes: 1 }))
    for (const kv of kvs ?? []) found.push(text(kv.key) ?? '');
  return found;
}

const bySlot = (a: string, b: string): number =>
  slotOf(bytes(a)) - slotOf(bytes(b)) || Buffer.compare(bytes(a), bytes(b));

describe('pinned keys', function () {
  this.timeout(240_000);

  it('R76 R77 D31: a key and a prefix go to a shard and come back while they are counted up and leaders die: each increment counts once', () =>
    withCluster({ shards: 2 }, async (fixture) => {
      const { client, cluster } = fixture;
      const command = new QuorateCommand(cluster.endpoints);
      const counting = new Counting(client);
      try {
        await counting.goesOn(fixture);
        const home = await ownerOf(client, slotOf(bytes('busy')));
        const other = home === 1 ? 2 : 1;
        const team = (await ownerOf(client, slotOf(bytes('{team}')))) === 1 ? 2 : 1;
        const pin = await pinTo(fixture, { key: 'busy', isPrefix: false, shard: other }, () =>
          restartLeader(fixture, home),
        );
        await pinTo(fixture, { key: '{team}', isPrefix: true, shard: team }, () =>
          restartLeader(fixture, team === 1 ? 2 : 1),
        );
        await counting.goesOn(fixture);
        await cluster.waitUntilReady(30_000);
        expect(pin).to.include({ hashSlot: slotOf(bytes('busy')), prefix: false });
        expect(pin.slot).to.be.at.least(slotCount);

        await cluster.waitFor('every node points to the pin', 20_000, async () => {
          const answers = await staleAnswers(fixture, 'busy');
          return (
            answers.length > 0 &&
            answers.every(({ fields }) => fields.pinSlot === pin.slot && fields.shardId === other)
          );
        });
        const mixed = client.txn({
          then: [{ get: { key: bytes('busy') } }, { get: { key: bytes('{busy}x') } }],
        });
        const refusal = await mixed.then(
          () => undefined,
          (error: unknown) => asKvError(error),
        );
        expect(refusal).to.include({ code: 'KV_INVALID' });
        expect(String(refusal)).to.contain("'busy' is pinned");
        const whole = { then: teamKeys.map((key) => ({ get: { key: bytes(key) } })) };
        expect((await client.txn(whole)).results).to.have.length(teamKeys.length);

        expect(await scanned(client)).to.deep.equal(counters.toSorted(bySlot));
        expect(await scanned(client, '{team}')).to.deep.equal(teamKeys);
        await command.expect('slot pin x --shard 99', 1, /there is no shard 99/);
        await command.expect('slot pin --shard 1', 2, /name a key or a prefix/);
        await command.expect('slot map', 0, /begin with \{team\}/);
        // A pin is a slot like others: it can migrate.
        const { slot } = pin;
        const move = { source: other, target: home, first: slot, last: slot };
        expect(await ended(fixture, await migrate(client, move))).to.include({ state: 'done' });
        await command.expect('slot unpin busy --wait', 0, /ok/);
        await client.changeCluster({ kind: 'unpinKeys', key: base64Of('{team}'), isPrefix: true });
        await cluster.waitFor('no pin is left', 60_000, async () => {
          return (await pinsOf(client)).length === 0;
        });
        await counting.goesOn(fixture);
      } finally {
        await counting.stop();
      }
      expect(counting.failures.map(String)).to.deep.equal([]);
      await cluster.waitUntilReady(30_000);
      expect(await scanned(client)).to.deep.equal(counters.toSorted(bySlot));
      for (const [key, count] of counting.counts)
        expect(text((await client.get({ key: bytes(key) })).kv?.value), key).to.equal(
          String(count),
        );
    }));
});
