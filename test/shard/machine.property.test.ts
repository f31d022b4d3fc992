import { expect } from 'chai';
import fc from 'fast-check';
import { KeyKind } from '../../storage/index.js';
import { slotOf } from '../../src/router/slot.js';
import { encodeExpire } from '../../src/shard/command-codec.js';
import { bytes, text } from './command-texts.js';
import { Model, plain, type Plain } from './model.js';
import { encode, Player, type Played } from './player.js';
import { keys, steps, type TimedStep } from './random-commands.js';
import { Replica } from './replica.js';

/** How often something happened over all runs: a run in which it never did proves nothing. */
class Seen {
  readonly counts = new Map<string, number>();

  note(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  result(result: Plain): void {
    const { kind } = result;
    if (kind === 'refused') this.note(String(result['refusal']));
    else if (kind === 'transaction') this.note(`transaction ${String(result['succeeded'])}`);
    else this.note(`${String(kind)} ${String(result['applied'] ?? '')}`);
  }
}

function applyToModel(model: Model, played: Played, seen: Seen): readonly Plain[] {
  model.time(played.logTimeMs);
  if (played.kind === 'time') return [];
  if (played.kind === 'expire') {
    for (const due of played.due)
      seen.note(`${due.kind} ${model.expire(due) ? 'expired' : 'not expired'}`);
    return [];
  }
  return played.writes.map((write) => {
    const before = new Map(model.changes);
    const result = model.write(write);
    seen.result(result);
    const changed = [...model.changes].some(([slot, change]) => before.get(slot) !== change);
    if (write.session !== undefined && result['kind'] !== 'refused' && !changed)
      seen.note('repeated');
    return result;
  });
}

/** Everything a reader could see is as the model says. */
async function expectEqualState(replica: Replica, model: Model): Promise<void> {
  expect(replica.machine.logTimeMs).to.equal(model.logTimeMs);
  expect(replica.machine.keys).to.equal(model.stored.size);
  for (const key of keys) {
    const found = model.visible(key);
    const kv = found === undefined ? undefined : { key, ...found };
    expect(plain(await replica.get(key)), key).to.deep.equal(kv);
    expect(replica.change(key), `change of ${key}`).to.equal(
      model.changes.get(slotOf(bytes(key))) ?? 0,
    );
  }
}

/**
 * The index has one entry for each stored key that expires and no other, and for each client one
 * that comes when its record may go, or earlier.
 */
async function expectExactIndex(replica: Replica, model: Model): Promise<void> {
  for (const key of ['{1}', '{2}']) {
    const slot = slotOf(bytes(key));
    const due = await replica.due(key);
    const dueKeys = due.filter(({ kind }) => kind === 'key');
    const found = dueKeys.map((each) => `${text(each.key)} ${each.dueMs} ${each.revision}`);
    const expected = [...model.stored]
      .filter(([name, { expiresAtMs }]) => name.startsWith(key) && expiresAtMs > 0)
      .map(([name, { expiresAtMs, revision }]) => `${name} ${expiresAtMs} ${revision}`);
    expect(found).to.have.members(expected);
    const clients = [...model.clients].filter(([name]) => name.startsWith(`${slot}/`));
    expect(await replica.count(key, KeyKind.session)).to.equal(clients.length);
    for (const [name, { lastNotAfterMs }] of clients) {
      const dues = due.filter((each) => `${slot}/${text(each.key)}` === name);
      expect(Math.min(...dues.map(({ dueMs }) => dueMs))).to.be.at.most(lastNotAfterMs + 1);
    }
    const slots = [...replica.machine.due.dueBy(Number.MAX_SAFE_INTEGER)];
    if (due.length > 0) expect(slots, 'the slot is looked at again').to.include(slot);
  }
}

/** When time has passed everything, keys without expiry are left, and nothing of the bookkeeping. */
async function expectNothingLeftOver(replica: Replica): Promise<void> {
  const logTimeMs = replica.machine.logTimeMs + 100_000;
  for (const key of ['{1}', '{2}']) {
    await replica.apply([encodeExpire(await replica.due(key), logTimeMs)]);
    await replica.apply([encodeExpire(await replica.due(key), logTimeMs)]);
    expect(await replica.due(key)).to.deep.equal([]);
    expect(await replica.count(key, KeyKind.session)).to.equal(0);
  }
  const kept = await Promise.all(keys.map((key) => replica.get(key)));
  expect(kept.filter((kv) => kv !== undefined)).to.have.length(replica.machine.keys);
}

async function expectRunLikeModel(
  run: readonly TimedStep[],
  batchLength: number,
  seen: Seen,
): Promise<void> {
  const replica = Replica.fresh();
  const model = new Model();
  const player = new Player(replica);
  for (let at = 0; at < run.length; at += batchLength) {
    // All of a batch is proposed before any of it is applied.
    const batch: Played[] = [];
    for (const step of run.slice(at, at + batchLength)) batch.push(await player.play(step));
    const results = await replica.apply(batch.map(encode));
    for (const [n, played] of batch.entries()) {
      const expected = applyToModel(model, played, seen);
      expect(plain(results[n]?.results), played.kind).to.deep.equal(expected);
      expect(results[n]?.logTimeMs).to.equal(model.logTimeMs);
    }
    await expectEqualState(replica, model);
  }
  await expectExactIndex(replica, model);
  await expectNothingLeftOver(replica);
}

describe('state machine of a shard against a plain model', () => {
  it('D20, D21, D22, R50, R53: agrees on every result, key, revision, session and expiry', async () => {
    let seen = new Seen();
    const played = fc.asyncProperty(steps(40), fc.integer({ min: 1, max: 6 }), (run, batchLength) =>
      expectRunLikeModel(run, batchLength, seen),
    );
    await fc.assert(played, { numRuns: 125 });
    // How often something happens must not hang on luck.
    seen = new Seen();
    await fc.assert(played, { numRuns: 150, seed: 1 });
    const wanted = [
      'put true',
      'put false',
      'delete true',
      'delete false',
      'increment ',
      'transaction true',
      'transaction false',
      'tooManySlots',
      'notInteger',
      'outOfRange',
      'repeated',
      'sessionExpired',
      'sessionForgotten',
      'sessionMismatch',
      'key expired',
      'key not expired',
      'session expired',
      'session not expired',
    ];
    const missing = wanted.filter((each) => (seen.counts.get(each) ?? 0) < 10);
    expect(missing, 'happened too rarely to prove anything').to.deep.equal([]);
  });
});
