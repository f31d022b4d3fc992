/** `quorate cluster rebalance`: every shard gets its share of the slots. */
import type {
  PlannedMove,
  PlanRebalanceReply,
  ShardWeight,
  SlotFigures,
} from '../../proto/messages.js';
import { KvError, type QuorateClient } from '../client/index.js';
import { countSlots, joinSpans } from '../router/slot-spans.js';
import { carryOut } from './metadata-change.js';
import { followMigrations } from './migration-progress.js';
import { parseInteger, parseNumber, type ClientFlags } from './options.js';
import {
  formatAge,
  formatBytes,
  formatCount,
  printJson,
  printTable,
  UsageError,
} from './output.js';
import { briefSlots } from './slot-list.js';

export interface RebalanceFlags extends ClientFlags {
  readonly weights?: string;
  readonly threshold: string;
  readonly dryRun?: boolean;
  readonly wait?: boolean;
}

export async function rebalance(client: QuorateClient, flags: RebalanceFlags): Promise<void> {
  const plan = await client.planRebalance({
    weights: weightsOf(flags.weights),
    thresholdPercent: parseNumber('--threshold', flags.threshold),
  });
  const isDry = flags.dryRun === true;
  if (flags.output === 'table') {
    const { settings } = await client.topology();
    const rate = settings.find(({ name }) => name === 'migrationBytesPerSecond')?.value ?? 1;
    printPlan(plan, await bytesOf(client, plan.moves), rate);
  }
  if (isDry && flags.output === 'json') printJson(plan);
  if (isDry) return;
  const { leftOff } = plan;
  // What is 0 in a message is no field of its own, and would be missing in the command.
  const moves = plan.moves.map(({ slots, source, target }) => ({
    slots: joinSpans(slots),
    source,
    target,
  }));
  if (moves.length === 0) {
    if (flags.output === 'json') printJson({ changed: false, issued: {} });
    return;
  }
  // Each move names its source: what has changed hands since the plan was made is refused.
  const { migrations = [] } = await carryOut(client, flags, { kind: 'startMigrations', moves });
  if (leftOff > 0)
    console.error(`${formatCount(leftOff)} moves are left: rebalance again when these have ended`);
  if (flags.wait === true) await followMigrations(client, flags, migrations);
}

/** '1=100,2=50'. */
function weightsOf(text: string | undefined): ShardWeight[] {
  if (text === undefined) return [];
  return text.split(',').map((part) => {
    const [shard = '', weight, more] = part.split('=');
    if (weight === undefined || more !== undefined)
      throw new UsageError(`--weights: '${part}' is not shard=weight, e.g. 1=100,2=50`);
    return {
      shardId: parseInteger('--weights: shard', shard.trim(), 1, 0xffff_ffff),
      weight: parseNumber(`--weights: weight of shard ${shard}`, weight),
    };
  });
}

/** Of each move, by what the leaders of the sources say; undefined: one of them does not answer. */
async function bytesOf(
  client: QuorateClient,
  moves: readonly PlannedMove[],
): Promise<readonly (number | undefined)[]> {
  const sizes = new Map<number, readonly SlotFigures[]>();
  for (const shardId of new Set(moves.map(({ source }) => source))) {
    try {
      const { slots } = await client.shardFigures({ shardId, withSlots: true });
      sizes.set(shardId, slots);
    } catch (error) {
      // Without a leader just now: the plan is shown without its bytes.
      if (!(error instanceof KvError)) throw error;
    }
  }
  return moves.map(({ source, slots }) => {
    const known = sizes.get(source);
    if (known === undefined) return undefined;
    return known
      .filter(({ slot }) => slots.some(({ first, last }) => slot >= first && slot <= last))
      .reduce((sum, { bytes }) => sum + bytes, 0);
  });
}

/** What a slot costs besides its bytes, ms: 4,096 of them took 2 to 5 s. */
const slotMs = 1;

/** At the rate that one migration keeps to; migrations of different shards run at the same time. */
function durationOf(slots: number, bytes: number, rate: number): string {
  return `about ${formatAge(slots * slotMs + (1000 * bytes) / Math.max(1, rate))}`;
}

function printPlan(
  { moves, shares }: PlanRebalanceReply,
  bytes: readonly (number | undefined)[],
  rate: number,
): void {
  const changing = shares.filter(({ slots, share }) => slots !== share);
  if (moves.length === 0) {
    console.log(
      changing.length === 0
        ? 'nothing to move: every shard has its share'
        : 'nothing can move: the slots that would have to are on their way elsewhere',
    );
    return;
  }
  printTable(
    ['shard', 'weight', 'slots', 'after', 'change'],
    changing.map(({ shardId, weight, slots, share }) => [
      String(shardId),
      String(Math.round(weight * 100) / 100),
      formatCount(slots),
      formatCount(share),
      `${share > slots ? '+' : ''}${formatCount(share - slots)}`,
    ]),
  );
  console.log('');
  printTable(
    ['from', 'to', 'count', 'bytes', 'takes', 'slots'],
    moves.map(({ source, target, slots }, n) => {
      const size = bytes[n];
      return [
        `shard ${source}`,
        `shard ${target}`,
        formatCount(countSlots(slots)),
        size === undefined ? '?' : formatBytes(size),
        size === undefined ? '?' : durationOf(countSlots(slots), size, rate),
        briefSlots(slots),
      ];
    }),
  );
  const total = moves.reduce((sum, { slots }) => sum + countSlots(slots), 0);
  console.log(
    `\n${formatCount(total)} slots to move, in ${moves.length} ` +
      (moves.length === 1 ? 'migration' : 'migrations'),
  );
}
