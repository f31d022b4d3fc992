/** `quorate slot pin|unpin`: a busy key, or keys with a prefix, as a slot of their own. */
import type { Command } from 'commander';
import type { MigrationInfo, PinInfo, TopologyReply } from '../../proto/messages.js';
import { KvError, type QuorateClient } from '../client/index.js';
import { slotCount } from '../router/slot.js';
import { carryOut } from './metadata-change.js';
import { isOpen } from './migration-progress.js';
import { parseInteger, withClient, withClientFlags, type ClientFlags } from './options.js';
import {
  formatBytes,
  formatCount,
  printTable,
  showBytes,
  Unhealthy,
  UsageError,
} from './output.js';

const pollMs = 200;
/** The node that is asked may not have heard of a pin that was made just now, this long, ms. */
const unheardMs = 10_000;

interface PinFlags extends ClientFlags {
  readonly prefix?: string;
  readonly shard: string;
  readonly wait?: boolean;
}

type UnpinFlags = Omit<PinFlags, 'shard'>;

export function addPins(slot: Command): void {
  withClientFlags(
    slot.command('pin [key]').description('give a busy key, or keys with a prefix, to one shard'),
  )
    .option('--prefix <prefix>', "instead of a key: all keys that begin so; with a whole '{tag}'")
    .requiredOption('--shard <id>', 'the shard that is to have them')
    .option('--wait', 'until it has them')
    .addHelpText(
      'after',
      `
The keys become a slot of their own, from ${slotCount} up, which can be migrated like any other. A
transaction cannot reach over it. With --wait the exit code is 3 when they could not be brought there.`,
    )
    .action((key: string | undefined, flags: PinFlags) => {
      const named = keysOf(key, flags.prefix);
      const shard = parseInteger('--shard', flags.shard, 1, 0xffff_ffff);
      return withClient(flags, async (client) => {
        const { pin } = await carryOut(client, flags, { kind: 'pinKeys', ...named, shard });
        if (flags.wait === true) await settled(client, pin, (each) => isThere(each, shard));
      });
    });
  withClientFlags(slot.command('unpin [key]').description('give keys back to their hash slot'))
    .option('--prefix <prefix>', 'instead of a key: the prefix that is pinned')
    .option('--wait', 'until they are there')
    .action((key: string | undefined, flags: UnpinFlags) => {
      const named = keysOf(key, flags.prefix);
      return withClient(flags, async (client) => {
        const { pin } = await carryOut(client, flags, { kind: 'unpinKeys', ...named });
        if (flags.wait === true) await settled(client, pin, (each) => each === undefined);
      });
    });
}

function keysOf(
  key: string | undefined,
  prefix: string | undefined,
): { readonly key: string; readonly isPrefix: boolean } {
  const named = key ?? prefix;
  if (named === undefined || (key !== undefined && prefix !== undefined))
    throw new UsageError('name a key or a prefix: quorate slot pin user:42, --prefix {user:42}');
  const bytes = Buffer.from(named, 'utf8');
  return { key: bytes.toString('base64'), isPrefix: prefix !== undefined };
}

function isThere(pin: PinInfo | undefined, shard: number): boolean {
  return pin?.state === 'pinned' && pin.shardId === shard;
}

/** Rejects (exit code 3) when nothing is under way any more that would lead there. */
async function settled(
  client: QuorateClient,
  slot: number | undefined,
  isDone: (pin: PinInfo | undefined) => boolean,
): Promise<void> {
  const untilMs = Date.now() + unheardMs;
  for (;;) {
    const topology = await client.topology();
    const pin = topology.pins.find((each) => each.slot === slot);
    if (isDone(pin)) return;
    const problem = problemOf(topology, pin);
    if (problem !== undefined && (pin !== undefined || Date.now() > untilMs))
      throw new Unhealthy(problem);
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

function problemOf(
  { slots, migrations }: TopologyReply,
  pin: PinInfo | undefined,
): string | undefined {
  if (pin === undefined) return 'the pin is gone: it was unpinned meanwhile';
  const { slot, state, shardId, hashSlot } = pin;
  const home = slots.find(({ first, last }) => hashSlot >= first && hashSlot <= last);
  // Its shard is at work on it, or a migration is.
  if (state === 'pinning' || (state === 'unpinning' && shardId === home?.shardId)) return undefined;
  const ofPin = migrations.filter((each) => holds(each, slot));
  if (ofPin.some(isOpen)) return undefined;
  const why = ofPin.at(-1)?.reason ?? '';
  return (
    `pin ${slot} stays with shard ${shardId}${why === '' ? '' : `: ${why}`}; ` +
    (state === 'pinned'
      ? `move it with quorate migration start --slots ${slot} --to N`
      : 'say quorate slot unpin again')
  );
}

function holds({ slots }: MigrationInfo, slot: number): boolean {
  return slots.some(({ first, last }) => slot >= first && slot <= last);
}

/** A pin as it is shown, with what the leader of its shard says it holds; null: nobody says. */
export interface ShownPin {
  readonly slot: number;
  readonly key: string;
  readonly prefix: boolean;
  readonly hashSlot: number;
  readonly shard: number;
  readonly epoch: number;
  readonly state: string;
  readonly keys: number | null;
  readonly bytes: number | null;
}

export async function shownPins(
  client: QuorateClient,
  pins: readonly PinInfo[],
): Promise<readonly ShownPin[]> {
  const held = new Map<number, { readonly keys: number; readonly bytes: number }>();
  for (const shardId of new Set(pins.map((pin) => pin.shardId))) {
    const slots = await slotsOf(client, shardId);
    for (const { slot, keys, bytes } of slots) held.set(slot, { keys, bytes });
  }
  return pins.map(({ slot, key, prefix, hashSlot, shardId, epoch, state }) => {
    const { keys = null, bytes = null } = held.get(slot) ?? {};
    return {
      slot,
      key: showBytes(key),
      prefix,
      hashSlot,
      shard: shardId,
      epoch,
      state,
      keys,
      bytes,
    };
  });
}

/** None where the shard has no leader just now: what is known without it is shown. */
async function slotsOf(
  client: QuorateClient,
  shardId: number,
): Promise<readonly { readonly slot: number; readonly keys: number; readonly bytes: number }[]> {
  try {
    return (await client.shardFigures({ shardId, withSlots: true }, { timeoutMs: 2000 })).slots;
  } catch (error) {
    if (error instanceof KvError) return [];
    throw error;
  }
}

export function printPins(pins: readonly ShownPin[]): void {
  printTable(
    ['pin', 'keys that', 'hash slot', 'shard', 'epoch', 'state', 'keys', 'bytes'],
    pins.map(({ slot, key, prefix, hashSlot, shard, epoch, state, keys, bytes }) => [
      String(slot),
      `${prefix ? 'begin with' : 'are'} ${key}`,
      String(hashSlot),
      String(shard),
      String(epoch),
      state,
      keys === null ? '?' : formatCount(keys),
      bytes === null ? '?' : formatBytes(bytes),
    ]),
  );
}

/** The pin that a key belongs to. */
export function pinOfKey({ pins }: TopologyReply, key: Uint8Array): PinInfo | undefined {
  return pins.find(({ key: pinned, prefix }) => {
    const part = prefix ? key.subarray(0, pinned.byteLength) : key;
    return Buffer.compare(part, pinned) === 0;
  });
}
