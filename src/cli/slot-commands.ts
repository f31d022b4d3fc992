/** `quorate slot ...`: which shard a key belongs to, and who has it. */
import { Command } from 'commander';
import type { SlotRangeInfo } from '../../proto/messages.js';
import { pinSlotMax, slotCount, slotOf } from '../router/slot.js';
import type { QuorateClient } from '../client/index.js';
import { takePicture, topologyOf, type Picture } from './cluster-picture.js';
import { addPins, pinOfKey, printPins, shownPins, type ShownPin } from './pin-commands.js';
import { parseInteger, withClient, withClientFlags, type ClientFlags } from './options.js';
import { formatBytes, formatCount, printJson, printTable, UsageError } from './output.js';

interface ShowFlags extends ClientFlags {
  readonly key?: string;
}

export function slotCommand(): Command {
  const slot = new Command('slot')
    .description('the slots that keys fall into, and who has them')
    .addHelpText(
      'after',
      `
Examples:
  quorate slot show --key user:42        the slot of a key, its shard, nodes and leader
  quorate slot map                       all ranges
  quorate slot hot --limit 5             the slots that are asked for most
  quorate slot pin user:42 --shard 3     a busy key as a slot of its own, in a shard of your choice
  quorate slot pin --prefix '{user:42}' --shard 3`,
    );
  withClientFlags(
    slot.command('map').description('all ranges of slots: shard, epoch, leader'),
  ).action((flags: ClientFlags) =>
    withClient(flags, async (client) => {
      const picture = await takePicture(client);
      map(picture, await shownPins(client, picture.topology.pins), flags.output);
    }),
  );
  withClientFlags(
    slot
      .command('show [slot]')
      .description(`one slot, 0 to ${slotCount - 1} or a pin, or the slot of a key: who has it`),
  )
    .option('--key <key>', 'the slot of this key; only a {tag} in it counts, if there is one')
    .action((text: string | undefined, flags: ShowFlags) => {
      const named = slotFrom(text, flags.key);
      return withClient(flags, async (client) => {
        const picture = await takePicture(client);
        const { topology } = picture;
        const own = flags.key === undefined ? undefined : pinOfKey(topology, bytesOf(flags.key));
        const slot = own?.slot ?? named;
        const pins = topology.pins.filter((pin) => pin.slot === slot || pin.hashSlot === slot);
        show(picture, slot, await shownPins(client, pins), flags.output);
      });
    });
  addHot(slot);
  addPins(slot);
  return slot;
}

const orders = ['operations', 'bytes', 'keys'] as const;
type Order = (typeof orders)[number];

interface HotFlags extends ClientFlags {
  readonly limit: string;
  readonly by: string;
}

function addHot(slot: Command): void {
  withClientFlags(
    slot.command('hot').description('the slots that are asked for most, or hold most'),
  )
    .option('--limit <n>', 'how many', '20')
    .option('--by <what>', `${orders.join(', ')}: what they are sorted by`, 'operations')
    .addHelpText(
      'after',
      "\nOperations are those that the shard's leader answered in its last whole ten seconds.",
    )
    .action((flags: HotFlags) => {
      const limit = parseInteger('--limit', flags.limit, 1, slotCount);
      const order = orders.find((each) => each === flags.by);
      if (order === undefined)
        throw new UsageError(`--by must be one of ${orders.join(', ')}, got '${flags.by}'`);
      return withClient(flags, (client) => hot(client, { limit, order, form: flags.output }));
    });
}

async function hot(
  client: QuorateClient,
  { limit, order, form }: { readonly limit: number; readonly order: Order; readonly form: string },
): Promise<void> {
  const { shards } = await topologyOf(client);
  const replies = await Promise.all(
    shards.map(async ({ shardId }) => {
      const { slots } = await client.shardFigures({ shardId, withSlots: true });
      return slots.map(({ slot, keys, bytes, operationsPerSecond }) => ({
        slot,
        shard: shardId,
        operations: operationsPerSecond,
        keys,
        bytes,
      }));
    }),
  );
  const top = replies
    .flat()
    .toSorted((a, b) => b[order] - a[order] || a.slot - b.slot)
    .slice(0, limit);
  if (form === 'json') {
    printJson(top);
    return;
  }
  printTable(
    ['slot', 'shard', 'operations/s', 'keys', 'bytes'],
    top.map(({ slot, shard, operations, keys, bytes }) => [
      String(slot),
      String(shard),
      operations.toFixed(1),
      formatCount(keys),
      formatBytes(bytes),
    ]),
  );
}

function slotFrom(text: string | undefined, key: string | undefined): number {
  if ((text === undefined) === (key === undefined))
    throw new UsageError('name a slot or a key: quorate slot show 42, quorate slot show --key a');
  return key === undefined ? parseInteger('slot', text ?? '', 0, pinSlotMax) : slotOf(bytesOf(key));
}

function bytesOf(key: string): Uint8Array {
  return Buffer.from(key, 'utf8');
}

function leaderOf({ groups }: Picture, { shardId }: Pick<SlotRangeInfo, 'shardId'>): number | null {
  return groups.find(({ id }) => id === shardId)?.leader?.node ?? null;
}

const leaderText = (leader: number | null): string => (leader === null ? 'none' : `node ${leader}`);

function map(picture: Picture, pins: readonly ShownPin[], form: string): void {
  const { slots, version } = picture.topology;
  const ranges = slots.map((range) => {
    const { first, last, shardId: shard, epoch } = range;
    return { first, last, shard, epoch, leader: leaderOf(picture, range) };
  });
  if (form === 'json') {
    printJson({ mapVersion: version, ranges, pins });
    return;
  }
  printTable(
    ['slots', 'count', 'shard', 'epoch', 'leader'],
    ranges.map(({ first, last, shard, epoch, leader }) => [
      first === last ? String(first) : `${first}-${last}`,
      String(last - first + 1),
      String(shard),
      String(epoch),
      leaderText(leader),
    ]),
  );
  if (pins.length > 0) printPins(pins);
  console.log(`\nmap version ${version}`);
}

function show(picture: Picture, slot: number, pins: readonly ShownPin[], form: string): void {
  const { slots, pins: all } = picture.topology;
  const range =
    slots.find(({ first, last }) => slot >= first && slot <= last) ??
    all.find((pin) => pin.slot === slot);
  if (range === undefined)
    throw new Error(`there is no pin ${slot}: quorate slot map lists slots and pins`);
  const { shardId: shard, epoch } = range;
  const { nodes } = picture.groups.find(({ id }) => id === shard) ?? { nodes: [] };
  const leader = leaderOf(picture, range);
  if (form === 'json') {
    printJson({ slot, shard, epoch, leader, nodes, pins });
    return;
  }
  console.log(
    `slot ${slot}: shard ${shard} at epoch ${epoch}, on nodes ${nodes.join(', ')}, ` +
      `leader ${leaderText(leader)}`,
  );
  if (pins.length > 0) printPins(pins);
}
