/**
 * Namespaces of its own for a run: network, mounts and processes. Whatever the run makes (bridge,
 * packet filter, mounts, nodes) is gone with its last process, however that ends. Needs root, or
 * user namespaces; without either the run goes on outside, over loopback.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { pathOf, tiedToThis } from './shell.js';

/** Set inside: how it was entered. */
const mark = 'QUORATE_JEPSEN_SANDBOX';
const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export type Sandbox = 'root' | 'user' | 'none';

/** What this process is in. */
export function sandbox(): Sandbox {
  const value = process.env[mark];
  return value === 'root' || value === 'user' ? value : 'none';
}

const namespaces = ['--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];

/** Runs this program again inside; its exit code, or undefined when that cannot be done here. */
export async function rerunInside(): Promise<number | undefined> {
  const unshare = pathOf('unshare');
  if (unshare === undefined || sandbox() !== 'none') return undefined;
  const asUser = process.getuid?.() === 0 ? [] : ['--user', '--map-root-user'];
  const ways = [asUser, ['--user', '--map-root-user']];
  const way = ways.find((flags) => {
    const probe = ['sh', '-c', 'mount -t tmpfs none /run'];
    return spawnSync(unshare, [...flags, ...namespaces, ...probe]).status === 0;
  });
  if (way === undefined) return undefined;
  const again = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  // The names of network namespaces are files in /run; /dev/shm is where libfaketime leaves some.
  const script = 'mount -t tmpfs none /run && mount -t tmpfs none /dev/shm && exec "$@"';
  const inside = [unshare, ...way, ...namespaces, 'sh', '-c', script, 'sh', ...again];
  // With this process goes the first one inside, and with that all others.
  const [program = '', ...args] = tiedToThis(inside);
  const child = spawn(program, args, {
    stdio: 'inherit',
    env: { ...process.env, [mark]: way.length === 0 ? 'root' : 'user' },
    // Ctrl-C comes to this process alone, which passes it on to the one that cleans up.
    detached: true,
  });
  const pass = (signal: NodeJS.Signals): void => {
    // The group: unshare itself waits for its child, which is in there.
    if (child.pid !== undefined) process.kill(-child.pid, signal);
  };
  for (const signal of signals) process.on(signal, pass);
  const [code] = (await once(child, 'exit')) as [number | null];
  return code ?? 1;
}
