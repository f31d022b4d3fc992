/** What the leader of a shard tells of its slots, and of the migrations that it drives. */
import type { ExportFigures, ShardFiguresReply, SlotFigures } from '../../proto/messages.js';
import type { MigrationFigures } from '../cluster/migration-order.js';
import type { Shard } from '../shard/shard.js';

export function shardFigures(
  slots: ReturnType<Shard['slotFigures']>,
  exports: Iterable<readonly [id: number, MigrationFigures]>,
  withSlots: boolean,
): ShardFiguresReply {
  const figures = Array.from(slots, ({ slot, state, operationsPerSecond }): SlotFigures => {
    const { keys, bytes } = state;
    return { slot, keys, bytes, operationsPerSecond };
  });
  const sum = (what: Exclude<keyof SlotFigures, 'slot'>): number =>
    figures.reduce((total, each) => total + each[what], 0);
  return {
    keys: sum('keys'),
    bytes: sum('bytes'),
    operationsPerSecond: sum('operationsPerSecond'),
    slots: withSlots ? figures.toSorted((a, b) => a.slot - b.slot) : [],
    exports: Array.from(exports, exportFigures),
  };
}

function exportFigures([migrationId, figures]: readonly [number, MigrationFigures]): ExportFigures {
  const { bytes: bytesSent, records: recordsSent, freezes, ...rest } = figures;
  const sorted = freezes.toSorted((a, b) => a - b);
  const at = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
  return {
    migrationId,
    ...rest,
    bytesSent,
    recordsSent,
    freezes: sorted.length,
    freezeMsMedian: at(0.5),
    freezeMsP99: at(0.99),
    freezeMsMax: sorted.at(-1) ?? 0,
  };
}
