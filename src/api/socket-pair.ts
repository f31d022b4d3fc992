/**
 * A connection of this process with itself, over the kernel.
 *
 * Two streams in memory would do the same with less work, but Node's HTTP/2 over them (its JSStream)
 * ends the whole process under load: "Check failed: byte_length <= kMaxByteLength" in
 * Http2Session::OnStreamRead, seen with Node 20.20.2 and 32 batches of 128 puts in flight.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * Returns one end, about to be connected; the other is handed to `onInside` a little later. The
 * socket lies for that moment in a directory that only this user can enter, and is gone afterwards.
 * Throws when the system's directory for temporary files cannot be written.
 */
export function socketPair(onInside: (socket: Socket) => void): Socket {
  const directory = mkdtempSync(join(tmpdir(), 'quorate-'));
  const path = join(directory, 's');
  const server = createServer((inside) => {
    server.close();
    onInside(inside);
  });
  server.on('close', () => {
    rmSync(directory, { recursive: true, force: true });
  });
  // Bound before `listen` returns: the connection waits in the kernel until it is accepted.
  server.listen(path);
  const outside = connect(path);
  outside.on('error', () => {
    server.close();
  });
  return outside;
}
