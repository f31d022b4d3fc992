import { slotOf, type KeyValueMessage } from '../../src/client/index.js';
import { bytes, type Actor } from './workload.js';

/** Small, so that a scan has several pages, and slots move and leaders change between them. */
const pageBytes = 1000;

/** All keys that begin with a tag in braces: they share a slot. */
export async function scanPrefix(
  { kv, level }: Pick<Actor, 'kv' | 'level'>,
  prefix: string,
): Promise<readonly KeyValueMessage[]> {
  const found: KeyValueMessage[] = [];
  const request = { prefix: bytes(prefix), slot: slotOf(bytes(prefix)), pageBytes, level };
  for await (const page of kv.scan(request)) found.push(...(page.kvs ?? []));
  return found;
}
