/**
 * Every metric of a node, in one place. Components keep plain counters of their own; they are read
 * when somebody scrapes, so that counting costs the hot path nothing.
 */
import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client';
import type { LoopDelayMeter } from './loop-delay.js';

/** What one group looks like at the moment of a scrape. */
export interface GroupFigures {
  readonly group: number;
  readonly kind: string;
  readonly leading: boolean;
  readonly term: number;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  readonly lastIndex: number;
  /** Plain counters and queue lengths of the driver, by name. */
  readonly counters: Readonly<Record<string, number>>;
}

/** Where the figures come from; every function is called on each scrape. */
export interface MetricsSource {
  readonly groups: () => readonly GroupFigures[];
  readonly transport: () => Readonly<Record<string, number>>;
  readonly raftLog: () => Readonly<Record<string, number>>;
  readonly engine: () => Readonly<Record<string, number>>;
  readonly connections: () => number;
  readonly callsInFlight: () => number;
  readonly loopDelay: LoopDelayMeter;
}

/** Calls by method and code, with their durations: what a client of the node sees. */
export interface CallMetrics {
  observe(method: string, code: string, seconds: number): void;
}

export class Metrics implements CallMetrics {
  private readonly registry = new Registry();
  private readonly calls: Counter<'method' | 'code'>;
  private readonly durations: Histogram<'method'>;

  constructor(source: MetricsSource) {
    const { registry } = this;
    // Its event-loop figures would wake an idle node a hundred times a second; ours are below.
    collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 60_000 });
    for (const { name } of registry.getMetricsAsArray())
      if (name.startsWith('nodejs_eventloop_lag')) registry.removeSingleMetric(name);
    this.calls = new Counter({
      name: 'quorate_calls_total',
      help: 'Calls answered, by method and code (OK or the error code)',
      labelNames: ['method', 'code'],
      registers: [registry],
    });
    this.durations = new Histogram({
      name: 'quorate_call_duration_seconds',
      help: 'From the request to its reply',
      labelNames: ['method'],
      buckets: [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10],
      registers: [registry],
    });
    this.addGroups(source);
    this.addFamily('quorate_transport', 'Peer transport, by name', source.transport);
    this.addFamily('quorate_raft_log', 'Raft log, by name', source.raftLog);
    this.addFamily('quorate_engine', 'State engine, by the name the engine gives', source.engine);
    this.addGauge('quorate_client_connections', 'Open client connections', source.connections);
    this.addGauge(
      'quorate_calls_in_flight',
      'Calls waiting for their answer',
      source.callsInFlight,
    );
    this.addGauge(
      'quorate_loop_delay_p999_seconds',
      'Event-loop delay since the last scrape, p99.9',
      () => {
        const delay = source.loopDelay.read().p999Ms / 1000;
        source.loopDelay.reset();
        return delay;
      },
    );
  }

  observe(method: string, code: string, seconds: number): void {
    this.calls.inc({ method, code });
    this.durations.observe({ method }, seconds);
  }

  /** The text format of Prometheus. */
  text(): Promise<string> {
    return this.registry.metrics();
  }

  get contentType(): string {
    return this.registry.contentType;
  }

  private addGauge(name: string, help: string, read: () => number): void {
    new Gauge({
      name,
      help,
      registers: [this.registry],
      collect() {
        this.set(read());
      },
    });
  }

  private addFamily(
    name: string,
    help: string,
    read: () => Readonly<Record<string, number>>,
  ): void {
    new Gauge({
      name,
      help,
      labelNames: ['name'],
      registers: [this.registry],
      collect() {
        for (const [label, value] of Object.entries(read())) this.set({ name: label }, value);
      },
    });
  }

  private addGroups(source: MetricsSource): void {
    const add = (name: string, help: string, read: (group: GroupFigures) => number): void => {
      new Gauge({
        name: `quorate_group_${name}`,
        help,
        labelNames: ['group', 'kind'],
        registers: [this.registry],
        collect() {
          this.reset();
          for (const group of source.groups()) {
            this.set({ group: String(group.group), kind: group.kind }, read(group));
          }
        },
      });
    };
    add('leading', '1 on the leader', (group) => (group.leading ? 1 : 0));
    add('term', 'Term', (group) => group.term);
    add('last_index', 'Last index of the log', (group) => group.lastIndex);
    add('commit_index', 'Commit index', (group) => group.commitIndex);
    add('applied_index', 'Applied index', (group) => group.appliedIndex);
    new Gauge({
      name: 'quorate_group_figures',
      help: 'Counters and queue lengths of a group, by name',
      labelNames: ['group', 'name'],
      registers: [this.registry],
      collect() {
        this.reset();
        for (const { group, counters } of source.groups()) {
          for (const [name, value] of Object.entries(counters))
            this.set({ group: String(group), name }, value);
        }
      },
    });
  }
}
