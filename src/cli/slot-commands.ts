/** `quorate slot ...`: which shard a key belongs to, and who has it. */
import { Command } from 'commander';
import type { SlotRangeInfo } from '../../proto/messages.js';
import { slotCount, slotOf } from '../router/slot.js';
import { takePicture, type Picture } from './cluster-picture.js';
import { parseInteger, withClient, withClientFlags, type ClientFlags } from './options.js';
import { printJson, printTable, UsageError } from './output.js';

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
  quorate slot map                       all ranges`,
    );
  withClientFlags(
    slot.command('map').description('all ranges of slots: shard, epoch, leader'),
  ).action((flags: ClientFlags) =>
    withClient(flags, async (client) => {
      map(await takePicture(client), flags.output);
    }),
  );
  withClientFlags(
    slot
      .command('show [slot]')
      .description(`one slot, 0 to ${slotCount - 1}, or the slot of a key: who has it`),
  )
    .option('--key <key>', 'the slot of this key; only a {tag} in it counts, if there is one')
    .action((text: string | undefined, flags: ShowFlags) => {
      const slot = slotFrom(text, flags.key);
      return withClient(flags, async (client) => {
        show(await takePicture(client), slot, flags.output);
      });
    });
  return slot;
}

function slotFrom(text: string | undefined, key: string | undefined): number {
  if ((text === undefined) === (key === undefined))
    throw new UsageError('name a slot or a key: quorate slot show 42, quorate slot show --key a');
  return key === undefined
    ? parseInteger('slot', text ?? '', 0, slotCount - 1)
    : slotOf(Buffer.from(key, 'utf8'));
}

function leaderOf({ groups }: Picture, { shardId }: SlotRangeInfo): number | null {
  return groups.find(({ id }) => id === shardId)?.leader?.node ?? null;
}

const leaderText = (leader: number | null): string => (leader === null ? 'none' : `node ${leader}`);

function map(picture: Picture, form: string): void {
  const { slots, version } = picture.topology;
  const ranges = slots.map((range) => {
    const { first, last, shardId: shard, epoch } = range;
    return { first, last, shard, epoch, leader: leaderOf(picture, range) };
  });
  if (form === 'json') {
    printJson({ mapVersion: version, ranges });
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
  console.log(`\nmap version ${version}`);
}

function show(picture: Picture, slot: number, form: string): void {
  const range = picture.topology.slots.find(({ first, last }) => slot >= first && slot <= last);
  if (range === undefined) throw new Error(`slot ${slot} belongs to no shard`);
  const { shardId: shard, epoch } = range;
  const { nodes } = picture.groups.find(({ id }) => id === shard) ?? { nodes: [] };
  const leader = leaderOf(picture, range);
  if (form === 'json') {
    printJson({ slot, shard, epoch, leader, nodes });
    return;
  }
  console.log(
    `slot ${slot}: shard ${shard} at epoch ${epoch}, on nodes ${nodes.join(', ')}, ` +
      `leader ${leaderText(leader)}`,
  );
}
