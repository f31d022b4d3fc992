/** redis-server from Debian: one node, nothing replicated, every write synced before its answer. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { cpuSeconds } from './process-figures.js';
import { freePort } from './free-port.js';

const run = promisify(execFile);
const startMsMax = 10_000;
const pollMs = 50;
const runMsMax = 300_000;

export interface RedisFigures {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly cpuUs: number;
}

export interface RedisLoad {
  readonly command: 'set' | 'get';
  readonly connections: number;
  /** Commands in flight on each. */
  readonly depth: number;
  readonly calls: number;
  readonly valueBytes: number;
}

export class RacedRedis {
  private readonly port: number;
  private readonly child: ReturnType<typeof spawn>;

  private constructor(port: number, child: ReturnType<typeof spawn>) {
    this.port = port;
    this.child = child;
  }

  static async start(directory: string): Promise<RacedRedis> {
    const port = await freePort();
    const data = join(directory, 'redis');
    mkdirSync(data, { recursive: true });
    const child = spawn(
      'redis-server',
      [
        ...['--port', String(port), '--bind', '127.0.0.1', '--dir', data, '--save', ''],
        ...['--appendonly', 'yes', '--appendfsync', 'always', '--loglevel', 'warning'],
      ],
      { stdio: 'ignore' },
    );
    const redis = new RacedRedis(port, child);
    const deadline = performance.now() + startMsMax;
    while (!(await redis.answers())) {
      if (performance.now() > deadline) {
        await redis.stop();
        throw new Error('redis-server does not answer');
      }
      await new Promise((resolve) => setTimeout(resolve, pollMs));
    }
    return redis;
  }

  private async answers(): Promise<boolean> {
    const { stdout } = await this.ask('ping').catch(() => ({ stdout: '' }));
    return stdout.trim() === 'PONG';
  }

  private ask(...command: readonly string[]): Promise<{ readonly stdout: string }> {
    return run('redis-cli', ['-p', String(this.port), ...command]);
  }

  /** Of the commands the server itself has counted. */
  private async counted(command: string): Promise<number> {
    const { stdout } = await this.ask('info', 'commandstats');
    return Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(stdout)?.[1] ?? 0);
  }

  async drive({
    command,
    connections,
    depth,
    calls,
    valueBytes,
  }: RedisLoad): Promise<RedisFigures> {
    const { pid } = this.child;
    const [before, cpuBefore] = [await this.counted(command), cpuSeconds(pid)];
    const { stdout } = await run(
      'redis-benchmark',
      [
        ...['-p', String(this.port), '-t', command, '-n', String(calls), '-d', String(valueBytes)],
        ...['-c', String(connections), '-P', String(depth), '-r', '100000', '--csv'],
      ],
      { timeout: runMsMax },
    );
    const cpuUs = ((cpuSeconds(pid) - cpuBefore) * 1e6) / calls;
    const done = (await this.counted(command)) - before;
    if (done < calls) throw new Error(`redis-server counted ${done} of ${calls} ${command}`);
    // "test","rps","avg","min","p50","p95","p99","max", milliseconds
    const line = stdout.split('\n').find((each) => each.startsWith(`"${command.toUpperCase()}`));
    const fields = (line ?? '').split(',').map((field) => Number(field.replaceAll('"', '')));
    const [, perSecond = 0, , , p50Ms = 0, , p99Ms = 0] = fields;
    return { perSecond, p50Ms, p99Ms, cpuUs };
  }

  async stop(): Promise<void> {
    if (this.child.exitCode !== null) return;
    const exited = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await exited;
  }
}
