/* uam.h - an AMQP 1.0 engine: bytes in, bytes out, time passed in.
 *
 * The engine is the protocol and nothing else: no sockets, TLS, clock, threads or globals. A driver moves bytes
 * between it and a transport with six functions (or with uam_step, which is those six in one call), reads events,
 * and calls the verbs of the specification: open, begin, attach, flow, settle, detach, end, close.
 *
 * Conventions
 *   - `now` is a monotonic count of milliseconds. Same calls, same bytes, same `now`: same output.
 *   - Sessions and links are named by 32-bit ids (slot and generation), never 0. A stale id gives UAM_ERR_STATE.
 *   - Performatives, errors and delivery states enter and leave as encoded AMQP. A performative is its list, without
 *     the descriptor; an error is the described list `error` (0x1d) or nothing; a state is a described value.
 *   - Arguments are *copied*: no pointer is kept after a call returns. What the engine lends is *borrowed* until the
 *     call named there.
 *   - A negative return is our caller's mistake and changed nothing, but for UAM_ERR_NOMEM and UAM_ERR_BROKEN, after which
 *     the engine is dead and repeats that code. A peer's mistake is never a return code: it is an event, and the
 *     close, end or detach that the specification asks for is already queued.
 */
#ifndef UAM_H
#define UAM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* cdef: begin */
typedef struct uam_engine uam_engine;

/* Where memory comes from: realloc(ctx, p, n) with the meaning of C's, and n = 0 frees. */
typedef struct uam_mem {
  void *(*realloc)(void *ctx, void *p, size_t n);
  void *ctx;
} uam_mem;

enum uam_role { UAM_CLIENT = 0, UAM_SERVER = 1 };

enum uam_result {
  UAM_OK = 0,
  UAM_ERR_ARG = -1,    /* an argument is malformed; uam_problem() says which */
  UAM_ERR_STATE = -2,  /* not now: stale id, not attached, already closed */
  UAM_ERR_LIMIT = -3,  /* channels, handles or a bound of limits.h used up */
  UAM_ERR_SIZE = -4,   /* the message is larger than the peer's max-message-size */
  UAM_ERR_DECODE = -5, /* codec functions: malformed or truncated bytes */
  UAM_ERR_NOMEM = -6,  /* fatal */
  UAM_ERR_BROKEN = -7  /* fatal: an invariant does not hold */
};

/* Events. `id` is a link id, or a session id where that is said; `offset, length` is the span of what is described. */
enum uam_event_kind {
  UAM_EVENT_CONN_STATE = 1,      /* first = old, last = new uam_conn_state */
  UAM_EVENT_SESSION_STATE = 2,   /* id = session; first = old, last = new uam_session_state */
  UAM_EVENT_LINK_STATE = 3,      /* first = old, last = new uam_link_state */
  UAM_EVENT_SASL_MECHANISMS = 4, /* client; span = the list of the frame. Nothing to do unless NOT_OFFERED is flagged */
  UAM_EVENT_SASL_INIT = 5,       /* server; span = the list; answer with uam_sasl_challenge or uam_sasl_outcome */
  UAM_EVENT_SASL_CHALLENGE = 6,  /* client; span = the list; answer with uam_sasl_response */
  UAM_EVENT_SASL_RESPONSE = 7,   /* server; span = the list */
  UAM_EVENT_SASL_OUTCOME = 8,    /* client; code = 0 ok, 1 auth, 2 sys, 3 sys-perm, 4 sys-temp; span = the list */
  UAM_EVENT_OPEN = 9,            /* the peer's; span = the list */
  UAM_EVENT_CLOSE = 10,          /* the peer's; span = its error, may be empty. Answered already */
  UAM_EVENT_BEGIN = 11,          /* the peer's; id = session; span = the list; flags REPLY when it answers ours */
  UAM_EVENT_END = 12,            /* the peer's; id = session; span = its error. Answered already */
  UAM_EVENT_ATTACH = 13,         /* the peer's; first = session; span = the list; flags REPLY when it answers ours */
  UAM_EVENT_DETACH = 14,         /* the peer's; span = its error; flags CLOSED. Answered already */
  UAM_EVENT_CREDIT = 15,         /* first = credit in hand now; flags DRAIN; last = the peer's `available` or 0 */
  UAM_EVENT_MESSAGE = 16,        /* first = delivery-id, last = message-format; flags SETTLED; span = the payload;
                                  tag_length bytes of delivery-tag stand at tag_offset */
  UAM_EVENT_SETTLED = 17,        /* deliveries first..last of this link (ids in between that are not this link's do not
                                  count); code = uam_outcome; flags SETTLED if the peer has settled; span = state. Of a
                                  receiving link: the sender took them back, or settled them by itself */
  UAM_EVENT_PEER_ERROR = 18,     /* the peer broke the rules or fell silent: span = the error we send; code = scope */
  UAM_EVENT_LOST = 19,           /* after uam_lost, the last event there is */
  UAM_EVENT_LATE = 20            /* a frame on a channel that has just ended was ignored: first = channel, code = its
                                  performative. Told for the first one there; limits.h says how many may follow */
};

enum uam_event_flag {
  UAM_FLAG_ADDRESS = 1, /* span and tag are absolute addresses, not offsets from uam_io.base */
  UAM_FLAG_SETTLED = 2,
  UAM_FLAG_REPLY = 4,
  UAM_FLAG_CLOSED = 8,
  UAM_FLAG_DRAIN = 16,
  UAM_FLAG_NOT_OFFERED = 32,
  UAM_FLAG_SENDER = 64, /* ATTACH: the local role of the link is sender */
  UAM_FLAG_ECHO = 128
};

/* What became of a delivery: descriptor codes of the specification (§3.4), and our own below 0x20. */
enum uam_outcome {
  UAM_OUT_NONE = 0,          /* settled, no state given */
  UAM_OUT_SENT = 1,          /* sent settled, and its last byte is with the kernel (uam_flushed) */
  UAM_OUT_NOT_DELIVERED = 2, /* link, session or transport went before the last byte was with the kernel */
  UAM_OUT_UNKNOWN = 3, /* ... after it, or we ended the session while it was on its way there: the peer may have it */
  UAM_OUT_RECEIVED = 0x23,
  UAM_OUT_ACCEPTED = 0x24,
  UAM_OUT_REJECTED = 0x25,
  UAM_OUT_RELEASED = 0x26,
  UAM_OUT_MODIFIED = 0x27,
  UAM_OUT_OTHER = 0xff
};

enum uam_scope { UAM_SCOPE_CONNECTION = 0, UAM_SCOPE_SESSION = 1, UAM_SCOPE_LINK = 2 };

typedef struct uam_event {
  uint16_t kind, flags;
  uint32_t id;
  uint32_t first, last;
  uint32_t code, tag_length;
  uint64_t offset, length;
  uint64_t tag_offset;
} uam_event;

enum uam_conn_state { /* §2.4.6; the numbers are c_uamqp.ConnectionState's */
                      UAM_CONN_START = 0,
                      UAM_CONN_HDR_RCVD = 1,
                      UAM_CONN_HDR_SENT = 2,
                      UAM_CONN_HDR_EXCH = 3,
                      UAM_CONN_OPEN_PIPE = 4,
                      UAM_CONN_OC_PIPE = 5,
                      UAM_CONN_OPEN_RCVD = 6,
                      UAM_CONN_OPEN_SENT = 7,
                      UAM_CONN_CLOSE_PIPE = 8,
                      UAM_CONN_OPENED = 9,
                      UAM_CONN_CLOSE_RCVD = 10,
                      UAM_CONN_CLOSE_SENT = 11,
                      UAM_CONN_DISCARDING = 12,
                      UAM_CONN_END = 13
};
enum uam_session_state { /* §2.5.5 */
                         UAM_SESSION_UNMAPPED = 0,
                         UAM_SESSION_BEGIN_SENT = 1,
                         UAM_SESSION_BEGIN_RCVD = 2,
                         UAM_SESSION_MAPPED = 3,
                         UAM_SESSION_END_SENT = 4,
                         UAM_SESSION_END_RCVD = 5,
                         UAM_SESSION_DISCARDING = 6
};
enum uam_link_state { /* §2.6.3, §2.6.6 */
                      UAM_LINK_DETACHED = 0,
                      UAM_LINK_ATTACH_SENT = 1,
                      UAM_LINK_ATTACH_RCVD = 2,
                      UAM_LINK_ATTACHED = 3,
                      UAM_LINK_DETACH_SENT = 4,
                      UAM_LINK_DETACH_RCVD = 5
};

enum uam_option {
  UAM_OPT_PIPELINE = 1,    /* 1: send open (begin, attach) without waiting for the peer's; default 0 */
  UAM_OPT_HEARTBEAT = 2,   /* per mille of the peer's idle-time-out after which an empty frame goes out; default 500 */
  UAM_OPT_TRACE = 3,       /* 1: keep a text line per frame for uam_trace; 2: payloads and SASL data too (tests) */
  UAM_OPT_MAX_MESSAGE = 4, /* bytes a received message may have where our attach has no max-message-size */
  UAM_OPT_OUTPUT_CAP = 5,  /* bytes of output above which uam_send_messages takes no further message */
  UAM_OPT_SASL_REQUIRED = 6, /* server: 1 answers a bare AMQP header with the SASL header and ends; default 0 */
  UAM_OPT_EXPLICIT = 7 /* 1: absent fields at the end go out as nulls, the answer to an outcome names it; default 0 */
};

enum uam_send_flag {
  UAM_SEND_SETTLED = 1, /* transfer.settled = true */
  UAM_SEND_DATA = 2,    /* each payload is the content of one data section, whose header the engine writes */
  UAM_SEND_TAGGED = 4   /* the first 16 bytes of each are its delivery-tag; otherwise the engine counts */
};

/* ---- life ---- */
uam_engine *uam_new(const uam_mem *mem, int role); /* mem NULL: the C library's. NULL when memory is short */
void uam_free(uam_engine *e);                      /* legal in every state; NULL too */
int uam_set(uam_engine *e, int option, uint64_t value);
const char *uam_problem(const uam_engine *e); /* why the last call gave UAM_ERR_ARG, LIMIT or BROKEN; borrowed
                                                             until the next call */

/* ---- bytes: the whole I/O surface ---- */
uint8_t *uam_recv_window(uam_engine *e, size_t *cap);       /* write here...            */
int uam_recv_commit(uam_engine *e, size_t n, uint64_t now); /* ...then say how much. 0: the transport was
                                                                       read until it would block; judges silence */
const uint8_t *uam_send_window(uam_engine *e, size_t *n);   /* send this...             */
int uam_send_commit(uam_engine *e, size_t n, uint64_t now); /* ...and say how much. 0: makes a heartbeat if owed */
size_t uam_events(uam_engine *e, const uam_event **events); /* those not handed out yet; borrowed until the next
                                                                       call, spans of received bytes until the next commit */
uint64_t uam_deadline(const uam_engine *e);                 /* when to call again; UINT64_MAX: never */

/* The same in one call: commits `received` and `sent`, hands out events and both windows. Events and `out` are borrowed
 * until the next call, `in` and the bytes that events speak of until the next uam_step or uam_recv_commit. */
typedef struct uam_io {
  uint64_t now;          /* in */
  uint64_t flushed;      /* in: as for uam_flushed */
  size_t received, sent; /* in; set to 0 */
  int dry;               /* in: the transport was just read until it would block, so silence may be judged */
  const uint8_t *base;   /* out: what offsets of events count from */
  const uam_event *events;
  size_t n_events;
  uint8_t *in;
  size_t in_cap;
  const uint8_t *out;
  size_t out_len;
  uint64_t deadline;
} uam_io;
int uam_step(uam_engine *e, uam_io *io);

/* The transport is gone, or was closed by us: every delivery still open leaves with SENT, NOT_DELIVERED or UNKNOWN. */
int uam_lost(uam_engine *e);
/* Of all bytes ever committed with uam_send_commit, the first `total` are with the kernel. Settled deliveries
 * leave with SENT. A driver whose send_commit already means the kernel calls it with every commit. */
int uam_flushed(uam_engine *e, uint64_t total);
uint64_t uam_committed(const uam_engine *e); /* sum of all uam_send_commit */

/* ---- SASL (§5.3): before the first byte ---- */
int uam_sasl_client(uam_engine *e, const char *mechanism, const uint8_t *response, size_t n, int has_response,
                    const char *hostname);                  /* hostname NULL: none */
int uam_sasl_server(uam_engine *e, const char *mechanisms); /* blank-separated */
int uam_sasl_challenge(uam_engine *e, const uint8_t *data, size_t n);
int uam_sasl_response(uam_engine *e, const uint8_t *data, size_t n);
int uam_sasl_outcome(uam_engine *e, int code);

/* ---- connection, session, link ---- */
int uam_open(uam_engine *e, const uint8_t *open, size_t n);
int uam_close(uam_engine *e, const uint8_t *error, size_t n);
int64_t uam_begin(uam_engine *e, uint32_t session, const uint8_t *begin, size_t n); /* session 0: a new one, else the
                                                             answer to the peer's. Gives the id */
int uam_end(uam_engine *e, uint32_t session, const uint8_t *error, size_t n);
int64_t uam_attach(uam_engine *e, uint32_t session, uint32_t link, const uint8_t *attach, size_t n); /* link 0: a new
                                                             one; handle and initial-delivery-count are the engine's */
int uam_detach(uam_engine *e, uint32_t link, int closed, const uint8_t *error, size_t n);
int uam_flow(uam_engine *e, uint32_t link, uint32_t credit, int flags); /* receiver; UAM_FLAG_DRAIN, UAM_FLAG_ECHO */
int uam_drained(uam_engine *e, uint32_t link);                          /* sender: nothing more to offer (§2.6.7) */

typedef struct uam_link_info {
  uint32_t session, state, is_sender, credit, delivery_count, handle, unsettled, drain;
  uint64_t remote_max_message_size; /* 0: no limit */
  uint32_t partial;                 /* 1: a message waits half sent for the session window */
  uint32_t remote_snd_settle_mode;
} uam_link_info;
int uam_get_link(const uam_engine *e, uint32_t link, uam_link_info *out);

typedef struct uam_conn_info {
  uint32_t state, remote_max_frame_size, remote_idle_timeout, remote_channel_max, max_frame_size;
  uint32_t transport_done; /* 1: nothing more will be sent or understood; close the transport */
} uam_conn_info;
int uam_get_conn(const uam_engine *e, uam_conn_info *out);

/* ---- deliveries ---- */
/* Offers n messages, joined in buf, lens[i] bytes each. Returns how many were taken (credit, output cap); their
 * delivery-ids are *first_id onwards, one apart. UAM_ERR_SIZE when the first one is too large for the peer. */
int64_t uam_send_messages(uam_engine *e, uint32_t link, const uint8_t *buf, const uint32_t *lens, size_t n,
                          uint32_t message_format, int flags, uint32_t *first_id);
/* Disposition (§2.7.6) for first..last of this link, of either role. state may be empty. Adjacent calls with the same
 * state leave as one frame. A sender that settles gives the delivery up; what is half sent is aborted. */
int uam_settle(uam_engine *e, uint32_t link, uint32_t first, uint32_t last, int settled, const uint8_t *state,
               size_t n);

/* ---- codec, no engine needed ---- */
/* One encoded value (or as many as n bytes hold) as a flat tape of 64-bit words; see tape.c for its words.
 * Returns the words needed: when more than cap, nothing past cap was written. UAM_ERR_DECODE when malformed. */
int64_t uam_tape(const uint8_t *buf, size_t n, uint64_t *tape, size_t cap);
/* The sections of an encoded message: four words each (descriptor code, offset of the section's value, its length,
 * offset of the section itself). */
int64_t uam_sections(const uint8_t *buf, size_t n, uint64_t *out, size_t cap);
/* Whether that message can be read: 0 when all of it are sections that there are, none but those of the body twice, each
 * of its type, header and properties with fields of theirs. Else UAM_ERR_DECODE. */
int uam_message_check(const uint8_t *buf, size_t n);
/* One frame (or protocol header) at buf as a line of text; *used = its bytes. flags 1: with payload and SASL data. */
int64_t uam_dump(const uint8_t *buf, size_t n, int flags, char *text, size_t cap, size_t *used);
/* The reverse: one line of that notation as bytes. */
int64_t uam_undump(const char *text, size_t n, uint8_t *buf, size_t cap);
/* Names of the wire: the performative (or section, terminus, outcome) of that code, and its i-th field; NULL past the end. */
const char *uam_composite_name(uint32_t code);
const char *uam_field_name(uint32_t code, uint32_t i);

/* Lines since the last call, '\n'-separated; borrowed until the next call. */
const char *uam_trace(uam_engine *e, size_t *n);
/* cdef: end */

#ifdef __cplusplus
}
#endif
#endif
