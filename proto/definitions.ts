/**
 * The .proto files at run time: codecs for messages, and service definitions for grpc-js. The only
 * place that loads them; it finds the folder by walking up, so that it works from the source and
 * from the compiled tree.
 */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import protobuf from 'protobufjs';
import type { MethodDefinition, ServiceDefinition } from '@grpc/grpc-js';

// 64-bit fields as plain numbers: decoding a 64-entry append took 37 us with Long objects and 8 us
// without. Terms, indexes and times are safe integers (2^53 at a million a second lasts 285 years).
// This is our own copy of protobufjs; grpc-js carries another, which is not affected.
Reflect.set(protobuf.util, 'Long', undefined);
protobuf.configure();

/** Messages of one type to bytes and back. */
export interface Codec<T> {
  encode(message: T): Uint8Array;
  /** Throws on malformed bytes. Byte fields of the result alias `bytes`. */
  decode(bytes: Uint8Array): T;
}

function findProtoFolder(folder: string): string {
  const candidate = join(folder, 'proto');
  if (existsSync(join(candidate, 'kv.proto'))) return candidate;
  const parent = dirname(folder);
  if (parent === folder) throw new Error(`proto/kv.proto not found above ${import.meta.dirname}`);
  return findProtoFolder(parent);
}

/** The folder that holds the .proto files. */
export const protoFolder = findProtoFolder(import.meta.dirname);

/** The files themselves, relative to `protoFolder`. */
export const protoFiles = [
  'kv.proto',
  'admin.proto',
  'topology.proto',
  'peer.proto',
  'errors.proto',
] as const;

const noBytes = Buffer.alloc(0);

function load(): protobuf.Root {
  const root = new protobuf.Root();
  root.resolvePath = (_origin, target) =>
    target.startsWith('google/protobuf/') || target.startsWith(protoFolder)
      ? target
      : join(protoFolder, target);
  root.loadSync([...protoFiles, 'google/rpc/status.proto']);
  root.resolveAll();
  giveDefaults(root);
  return root;
}

/**
 * What a field that was not sent reads as. protobufjs gives an empty *array* for bytes, and for a
 * member of a oneof the default of its type, which cannot be told from one that was sent: here bytes
 * are bytes, and what has presence is null.
 */
function giveDefaults(namespace: protobuf.NamespaceBase): void {
  for (const nested of namespace.nestedArray) {
    if (nested instanceof protobuf.Type) {
      for (const field of nested.fieldsArray) {
        const value = field.partOf !== null ? null : noBytes;
        if (value === noBytes && (field.type !== 'bytes' || field.repeated)) continue;
        Object.defineProperty(nested.ctor.prototype, field.name, { value, writable: true });
      }
    }
    if (nested instanceof protobuf.Namespace) giveDefaults(nested);
  }
}

const root = load();

/** The reflected type, e.g. for a test that compares field lists. `name` is the full name. */
export function typeOf(name: string): protobuf.Type {
  return root.lookupType(name);
}

/** The codec of a message type. `T` is the caller's claim (messages.ts); a test checks it. */
export function codecOf<T extends object>(name: string): Codec<T> {
  const type = root.lookupType(name);
  return {
    encode: (message) => type.encode(message).finish(),
    // A decoder: protobufjs fills exactly the fields that the .proto file declares.
    decode: (bytes) => type.decode(bytes) as unknown as T,
  };
}

function methodOf(
  service: protobuf.Service,
  method: protobuf.Method,
): MethodDefinition<object, object> {
  const request = codecOf<object>(`quorate.v1.${method.requestType}`);
  const reply = codecOf<object>(`quorate.v1.${method.responseType}`);
  return {
    path: `/${service.fullName.replace(/^\./, '')}/${method.name}`,
    requestStream: method.requestStream ?? false,
    responseStream: method.responseStream ?? false,
    requestSerialize: (message) => Buffer.from(request.encode(message)),
    requestDeserialize: (bytes) => request.decode(bytes),
    responseSerialize: (message) => Buffer.from(reply.encode(message)),
    responseDeserialize: (bytes) => reply.decode(bytes),
    originalName: method.name.charAt(0).toLowerCase() + method.name.slice(1),
  };
}

/** A service of package quorate.v1 in the form that grpc-js wants. */
export function serviceDefinition(name: 'KV' | 'Admin' | 'Topology'): ServiceDefinition {
  const service = root.lookupService(`quorate.v1.${name}`);
  const methods = service.methodsArray.map((method) => [method.name, methodOf(service, method)]);
  return Object.fromEntries(methods) as ServiceDefinition;
}
