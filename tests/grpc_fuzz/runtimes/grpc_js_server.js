// A correct service on grpc-js. It prints its port, and serves until its standard input ends.
//
// Run as `node grpc_js_server.js NOTES_PROTO`, with @grpc/grpc-js and @grpc/proto-loader in NODE_PATH.
const path = require("path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const file = process.argv[2];
const definition = loader.loadSync(path.basename(file), {
  includeDirs: [path.dirname(file)],
  keepCase: true,
  longs: String,
});
const { Notes } = grpc.loadPackageDefinition(definition).notes.v1;

const SECOND = { at: [-62135596800n, 253402300799n], lasting: [-315576000000n, 315576000000n] };
const NANO = { at: [0, 999999999], lasting: [-999999999, 999999999] };

// Whether a time is outside the range that its own .proto file documents.
function isOutside(kind, time) {
  if (!time) return false;
  const seconds = BigInt(time.seconds || 0);
  const nanos = time.nanos || 0;
  if (seconds < SECOND[kind][0] || seconds > SECOND[kind][1]) return true;
  if (nanos < NANO[kind][0] || nanos > NANO[kind][1]) return true;
  return kind === "lasting" && ((seconds > 0n && nanos < 0) || (seconds < 0n && nanos > 0));
}

function wrong(note) {
  const inner = [note.inner, ...(note.many || []), ...Object.values(note.by_name || {})];
  const times = [note.at, ...inner.map((entry) => entry && entry.at)];
  const bad = times.some((time) => isOutside("at", time)) || isOutside("lasting", note.lasting);
  return bad ? { code: grpc.status.INVALID_ARGUMENT, details: "a time is out of range" } : null;
}

const server = new grpc.Server();
server.addService(Notes.service, {
  Echo(call, done) {
    done(wrong(call.request), call.request);
  },
  Count(call, done) {
    let notes = 0;
    let error = null;
    call.on("data", (note) => {
      error = error || wrong(note);
      notes += 1;
    });
    call.on("error", () => {});
    call.on("end", () => done(error, { notes }));
  },
  Split(call) {
    const error = wrong(call.request);
    if (error) {
      call.emit("error", error);
      return;
    }
    call.write(call.request);
    call.write(call.request);
    call.end();
  },
  Chat(call) {
    let failed = false;
    call.on("data", (note) => {
      const error = wrong(note);
      if (failed) return;
      if (error) {
        failed = true;
        call.emit("error", error);
        return;
      }
      call.write(note);
    });
    call.on("error", () => {});
    call.on("end", () => {
      if (!failed) call.end();
    });
  },
});
server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(port);
});
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
