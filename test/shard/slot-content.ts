/** What really stands in the engine of a replica, counted anew, to compare with what it keeps count of. */
import { expect } from 'chai';
import {
  decodeSlotKey,
  KeyKind,
  machineKey,
  type Pair,
  type SlotKeyParts,
} from '../../storage/index.js';
import type { Slot } from '../../src/router/slot.js';
import { addSum, recordSum } from '../../src/shard/content-sum.js';
import { isServing, SlotOwnership, type SlotState } from '../../src/shard/slot-state.js';
import { decodeSessionRecord, decodeValue } from '../../src/shard/value-codec.js';
import { text } from './command-texts.js';
import type { Model } from './model.js';
import type { Replica } from './replica.js';

export interface SlotContent {
  readonly values: ReadonlyMap<string, { value: string; revision: number; expiresAtMs: number }>;
  readonly sessions: ReadonlyMap<string, { lastNotAfterMs: number; sequences: readonly number[] }>;
  readonly keys: number;
  readonly bytes: number;
  readonly sum: number;
  /** Keys of the slot that nobody needs: of other instances, indexes, tombstones. */
  readonly dead: readonly SlotKeyParts[];
}

/** What stands beside the data while the slot migrates. */
function controlKind({ ownership }: SlotState): number | undefined {
  switch (ownership) {
    case SlotOwnership.exporting:
    case SlotOwnership.frozen:
    case SlotOwnership.handedOver:
      return KeyKind.change;
    case SlotOwnership.importing:
    case SlotOwnership.ready:
      return KeyKind.tombstone;
    default:
      return undefined;
  }
}

function isAlive({ instance, kind, userKey }: SlotKeyParts, state: SlotState): boolean {
  if (state.ownership === SlotOwnership.absent || instance !== state.instance) return false;
  if (kind === KeyKind.change && userKey.subarray(0, 8).at(-1) !== state.migration?.id)
    return false;
  return kind <= KeyKind.expiry || kind === controlKind(state);
}

/** Every pair of the slots' area: all slots, instances and kinds. */
export async function slotPairs(replica: Replica): Promise<readonly Pair[]> {
  const { engine, prefix, machine } = replica;
  const end = machineKey(prefix, '').subarray(0, prefix.byteLength + 2);
  const view = engine.iterate({ start: machine.range.start, end, pageBytesMax: 1 << 28 });
  const page = await view.next();
  await view.close();
  return page;
}

/** Of the slot's instance as its state names it. */
export async function contentOf(replica: Replica, slot: Slot): Promise<SlotContent> {
  const state = replica.machine.slotState(slot);
  const dead: SlotKeyParts[] = [];
  const values = new Map<string, { value: string; revision: number; expiresAtMs: number }>();
  const sessions = new Map<string, { lastNotAfterMs: number; sequences: readonly number[] }>();
  let [bytes, sum] = [0, 0];
  for (const { key, value: stored } of await slotPairs(replica)) {
    const parts = decodeSlotKey(key);
    const { kind, userKey } = parts;
    if (parts.slot !== slot) continue;
    if (!isAlive(parts, state)) dead.push(parts);
    if (parts.instance !== state.instance) continue;
    if (kind !== KeyKind.value && kind !== KeyKind.session) continue;
    bytes += userKey.byteLength + stored.byteLength;
    sum = addSum(sum, recordSum(kind, userKey, stored));
    if (kind === KeyKind.value) {
      const { revision, expiresAtMs, bytes: value } = decodeValue(stored);
      values.set(text(userKey), { value: text(value), revision, expiresAtMs });
    } else {
      const { lastNotAfterMs, entries } = decodeSessionRecord(stored);
      const sequences = entries.map(({ sequence }) => sequence).sort((a, b) => a - b);
      sessions.set(text(userKey), { lastNotAfterMs, sequences });
    }
  }
  return { values, sessions, keys: values.size, bytes, sum, dead };
}

export function expectCounted(replica: Replica, slot: Slot, content: SlotContent): void {
  const { keys, bytes, sum } = replica.machine.slotState(slot);
  const counted = { keys: content.keys, bytes: content.bytes, sum: content.sum };
  expect({ keys, bytes, sum }, `counts of slot ${slot}`).to.deep.equal(counted);
  expect(content.dead, `dead keys of slot ${slot}`).to.deep.equal([]);
}

/** Values, revisions, expiry times and sessions, expired ones that still stand there included. */
export function expectContent(model: Model, slot: Slot, content: SlotContent): void {
  expect([...content.values].sort(), `values of slot ${slot}`).to.deep.equal(
    [...model.stored].sort(),
  );
  const sessions = [...model.clients].map(([name, { lastNotAfterMs, finished }]) => [
    name.slice(name.indexOf('/') + 1),
    { lastNotAfterMs, sequences: [...finished.keys()].sort((a, b) => a - b) },
  ]);
  expect([...content.sessions].sort(), `sessions of slot ${slot}`).to.deep.equal(sessions.sort());
}

/** One entry in the expiry index for each value that expires, and for each session one that is in time. */
export async function expectExactIndex(
  replica: Replica,
  slot: Slot,
  content: SlotContent,
): Promise<void> {
  const due = await replica.dueOf(slot);
  const { machine } = replica;
  if (due[0] !== undefined && isServing(machine.slotState(slot)))
    expect([...machine.due.dueBy(due[0].dueMs)], 'slots to be looked at').to.include(slot);
  const found = due
    .filter(({ kind }) => kind === 'key')
    .map(({ key, dueMs, revision }) => `${text(key)} ${dueMs} ${revision}`);
  const wanted = [...content.values]
    .filter(([, { expiresAtMs }]) => expiresAtMs > 0)
    .map(([key, { expiresAtMs, revision }]) => `${key} ${expiresAtMs} ${revision}`);
  expect(found.sort(), `expiry index of slot ${slot}`).to.deep.equal(wanted.sort());
  for (const [client, { lastNotAfterMs }] of content.sessions) {
    const dues = due.filter(({ kind, key }) => kind === 'session' && text(key) === client);
    expect(Math.min(...dues.map(({ dueMs }) => dueMs)), 'a session that ends').to.be.at.most(
      lastNotAfterMs + 1,
    );
  }
}
