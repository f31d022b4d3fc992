/**
 * Every metric of a node, in one place. Components keep plain counters of their own; they are read
 * when somebody scrapes, so that counting costs the hot path nothing. Series of shards are made anew
 * for each scrape: those of a shard that has left the node are gone.
 */
import { Counter, Gauge, Registry, collectDefaultMetrics } from 'prom-client';
import type { LoopDelayMeter } from './loop-delay.js';
import type { Meters } from './meters.js';

/** What one shard looks like at the moment of a scrape; the metadata group is shard 0. */
export interface ShardSample {
  readonly shard: number;
  readonly role: string;
  readonly term: number;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  readonly lastIndex: number;
  /** On the leader: entries that the slowest member does not have yet. */
  readonly logLag: number | undefined;
  /** Counters and queue lengths of the driver, by name. */
  readonly figures: Readonly<Record<string, number>>;
}

export interface PeerSample {
  readonly node: number;
  readonly connected: boolean;
  readonly roundTripUs: number;
}

export interface QueueSample {
  readonly queue: string;
  readonly length: number;
  readonly limit: number;
}

/** Where the figures come from; every function is called once on each scrape. */
export interface MetricsSource {
  readonly shards: () => readonly ShardSample[];
  readonly peers: () => readonly PeerSample[];
  readonly queues: () => readonly QueueSample[];
  /** By the name that the transport, the Raft log and the engine give them. */
  readonly transport: () => Readonly<Record<string, number>>;
  readonly raftLog: () => Readonly<Record<string, number>>;
  readonly engine: () => Readonly<Record<string, number>>;
  /** By metric name without `quorate_`, with its help. */
  readonly gauges: readonly (readonly [name: string, help: string, read: () => number])[];
  readonly forwarded: () => number;
  readonly loopDelay: LoopDelayMeter;
}

type Labels = Readonly<Record<string, string>>;
type Add = (labels: Labels, value: number) => void;

interface Family {
  readonly name: string;
  readonly help: string;
  readonly labels?: readonly string[];
  readonly read: (add: Add) => void;
}

const engineGauges: readonly (readonly [property: string, name: string, help: string])[] = [
  ['total-sst-files-size', 'files_bytes', 'Table files on disk'],
  ['cur-size-all-mem-tables', 'memtables_bytes', 'Memtables'],
  ['num-immutable-mem-table', 'immutable_memtables', 'Memtables that wait to be flushed'],
  ['block-cache-usage', 'block_cache_bytes', 'Block cache in use'],
  ['block-cache-capacity', 'block_cache_capacity_bytes', 'Block cache, limit'],
  ['estimate-table-readers-mem', 'table_readers_bytes', 'Indexes and filters outside of the cache'],
  ['estimate-num-keys', 'keys', 'Keys, estimated'],
  ['compaction-pending', 'compaction_pending', '1 while a compaction is due'],
  ['estimate-pending-compaction-bytes', 'compaction_pending_bytes', 'Bytes that wait for it'],
  ['num-running-compactions', 'compactions_running', 'Compactions under way'],
  ['num-running-flushes', 'flushes_running', 'Flushes under way'],
  ['is-write-stopped', 'write_stopped', '1 while RocksDB takes no writes'],
  ['actual-delayed-write-rate', 'delayed_write_rate_bytes', 'Bytes a second; 0: not slowed down'],
  ['background-errors', 'background_errors', 'Errors of background work'],
];

const transportCounters: readonly (readonly [property: string, name: string])[] = [
  ['framesOut', 'frames_sent_total'],
  ['framesIn', 'frames_received_total'],
  ['messagesOut', 'messages_sent_total'],
  ['messagesIn', 'messages_received_total'],
  ['messagesDropped', 'messages_dropped_total'],
  ['bytesOut', 'sent_bytes_total'],
  ['bytesIn', 'received_bytes_total'],
  ['malformed', 'malformed_frames_total'],
];

const shardCounters: readonly (readonly [figure: string, name: string, help: string])[] = [
  ['proposals', 'proposals_started_total', 'Proposals appended to the log here'],
  ['reads', 'reads_total', 'Reads that asked for a read index here'],
  [
    'readRounds',
    'read_rounds_total',
    'Rounds that confirmed them: reads over rounds is their batch',
  ],
  ['snapshotsSent', 'snapshots_sent_total', 'Snapshots offered to followers'],
  ['snapshotsInstalled', 'snapshots_received_total', 'Snapshots installed here'],
  ['appliedEntries', 'applied_entries_total', 'Entries applied here'],
  ['persistBatches', 'persist_batches_total', 'Batches given to the Raft log'],
];

const proposalOutcomes: readonly (readonly [figure: string, outcome: string])[] = [
  ['proposalsApplied', 'applied'],
  ['proposalsRefused', 'refused'],
  ['proposalsOverwritten', 'overwritten'],
  ['proposalsUnknown', 'unknown'],
];

type Sample = ReturnType<typeof take>;

function take({ shards, peers, queues, transport, raftLog, engine }: MetricsSource) {
  return {
    shards: shards(),
    peers: peers(),
    queues: queues(),
    transport: transport(),
    raftLog: raftLog(),
    engine: engine(),
  };
}

export class Metrics {
  private readonly registry = new Registry();
  private readonly source: MetricsSource;
  /** Of the scrape under way. */
  private sample: Sample;

  constructor(source: MetricsSource, meters: Meters) {
    const { registry } = this;
    this.source = source;
    this.sample = take(source);
    // Its event-loop figures would wake an idle node a hundred times a second; ours are below.
    collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 60_000 });
    for (const { name } of registry.getMetricsAsArray())
      if (name.startsWith('nodejs_eventloop_lag')) registry.removeSingleMetric(name);
    for (const meter of meters.all) registry.registerMetric(meter);
    this.addShards();
    this.addPeers();
    this.addDisk();
    this.addQueues();
    this.addLoopDelay();
    for (const [name, help, read] of source.gauges) this.addGauge(name, help, read);
    this.addCounter('forwarded_requests_total', 'Calls passed on to other nodes', source.forwarded);
  }

  /** The text format of Prometheus. */
  text(): Promise<string> {
    this.sample = take(this.source);
    return this.registry.metrics();
  }

  get contentType(): string {
    return this.registry.contentType;
  }

  // ---- kinds of families

  private gauges({ name, help, labels = [], read }: Family): void {
    new Gauge({
      name: `quorate_${name}`,
      help,
      labelNames: [...labels],
      registers: [this.registry],
      collect() {
        this.reset();
        read((values, value) => {
          this.set(values, value);
        });
      },
    });
  }

  private counters({ name, help, labels = [], read }: Family): void {
    new Counter({
      name: `quorate_${name}`,
      help,
      labelNames: [...labels],
      registers: [this.registry],
      collect() {
        this.reset();
        read((values, value) => {
          this.inc(values, value);
        });
      },
    });
  }

  private addGauge(name: string, help: string, read: () => number): void {
    this.gauges({
      name,
      help,
      read: (add) => {
        add({}, read());
      },
    });
  }

  private addCounter(name: string, help: string, read: () => number): void {
    this.counters({
      name,
      help,
      read: (add) => {
        add({}, read());
      },
    });
  }

  // ---- what there is

  private addShards(): void {
    const each = (
      read: (shard: ShardSample, labels: { readonly shard: string }, add: Add) => void,
    ): Family['read'] => {
      return (add) => {
        for (const shard of this.sample.shards) read(shard, { shard: String(shard.shard) }, add);
      };
    };
    const gauge = (
      name: string,
      help: string,
      read: (shard: ShardSample) => number | undefined,
    ): void => {
      this.gauges({
        name: `shard_${name}`,
        help,
        labels: ['shard'],
        read: each((shard, labels, add) => {
          const value = read(shard);
          if (value !== undefined) add(labels, value);
        }),
      });
    };
    gauge('term', 'Term', ({ term }) => term);
    gauge('commit_index', 'Commit index', ({ commitIndex }) => commitIndex);
    gauge('apply_lag_entries', 'Committed, not yet applied here', (shard) => {
      return shard.commitIndex - shard.appliedIndex;
    });
    gauge('uncommitted_entries', 'In the log here, not known to be committed', (shard) => {
      return shard.lastIndex - shard.commitIndex;
    });
    gauge('log_lag_entries', 'On the leader: what the slowest member lacks', (s) => s.logLag);
    this.gauges({
      name: 'shard_role',
      help: '1 for the role that this replica has',
      labels: ['shard', 'role'],
      read: each(({ role }, labels, add) => {
        add({ ...labels, role }, 1);
      }),
    });
    for (const [figure, name, help] of shardCounters)
      this.counters({
        name: `shard_${name}`,
        help,
        labels: ['shard'],
        read: each(({ figures }, labels, add) => {
          add(labels, figures[figure] ?? 0);
        }),
      });
    this.counters({
      name: 'shard_proposals_total',
      help: 'What became of proposals here; refused ones were never appended',
      labels: ['shard', 'outcome'],
      read: each(({ figures }, labels, add) => {
        for (const [figure, outcome] of proposalOutcomes)
          add({ ...labels, outcome }, figures[figure] ?? 0);
      }),
    });
  }

  private addPeers(): void {
    const gauge = (name: string, help: string, read: (peer: PeerSample) => number): void => {
      this.gauges({
        name: `peer_${name}`,
        help,
        labels: ['peer'],
        read: (add) => {
          for (const peer of this.sample.peers) add({ peer: String(peer.node) }, read(peer));
        },
      });
    };
    gauge('connected', '1 while there is a connection', ({ connected }) => Number(connected));
    gauge('round_trip_seconds', 'Of the last probe', ({ roundTripUs }) => roundTripUs / 1e6);
    for (const [property, name] of transportCounters)
      this.addCounter(`peer_${name}`, `All peers together: ${name.replaceAll('_', ' ')}`, () => {
        return this.sample.transport[property] ?? 0;
      });
  }

  private addDisk(): void {
    this.addGauge(
      'raft_log_bytes',
      'Segments of the Raft log on disk',
      () => this.sample.raftLog['bytes'] ?? 0,
    );
    this.addGauge('raft_log_live_bytes', 'What of it is needed still', () => {
      return this.sample.raftLog['liveBytes'] ?? 0;
    });
    this.addGauge('raft_log_segments', 'Its files', () => this.sample.raftLog['segments'] ?? 0);
    this.addCounter('raft_log_written_bytes_total', 'Written since the start', () => {
      return this.sample.raftLog['writtenBytes'] ?? 0;
    });
    // An engine in memory has none of them.
    for (const [property, name, help] of engineGauges)
      this.gauges({
        name: `engine_${name}`,
        help: `RocksDB: ${help}`,
        read: (add) => {
          const value = this.sample.engine[property];
          if (value !== undefined) add({}, value);
        },
      });
    this.gauges({
      name: 'engine_level_files',
      help: 'RocksDB: table files of a level',
      labels: ['level'],
      read: (add) => {
        for (const [property, value] of Object.entries(this.sample.engine)) {
          const level = /^num-files-at-level(\d+)$/.exec(property)?.[1];
          if (level !== undefined) add({ level }, value);
        }
      },
    });
  }

  /** Of queues that each shard or peer has, the longest one. */
  private addQueues(): void {
    const gauge = (name: string, help: string, read: (queue: QueueSample) => number): void => {
      this.gauges({
        name,
        help,
        labels: ['queue'],
        read: (add) => {
          for (const queue of this.sample.queues) add({ queue: queue.queue }, read(queue));
        },
      });
    };
    gauge('queue_length', 'What waits now, in the unit of its limit', ({ length }) => length);
    gauge('queue_limit', 'From here on it is refused or dropped', ({ limit }) => limit);
  }

  private addLoopDelay(): void {
    this.gauges({
      name: 'event_loop_delay_seconds',
      help: 'How late the event loop ran since the last scrape',
      labels: ['quantile'],
      read: (add) => {
        const { loopDelay } = this.source;
        const { p50Ms, p99Ms, p999Ms, maxMs } = loopDelay.read();
        loopDelay.reset();
        add({ quantile: '0.5' }, p50Ms / 1000);
        add({ quantile: '0.99' }, p99Ms / 1000);
        add({ quantile: '0.999' }, p999Ms / 1000);
        add({ quantile: '1' }, maxMs / 1000);
      },
    });
  }
}
