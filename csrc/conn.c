/* conn.c - the connection (§2.2, §2.4): protocol headers, open and close, idle time-outs, and what ends everything.
 * Called by engine.c for frames on any channel that concern the connection, and by the phases of output. */
#include <stdarg.h>
#include <stdio.h>

#include "uam_int.h"

static void enter(uam_engine *e, uint8_t state) {
  uint8_t old = e->conn.state;
  e->conn.state = state;
  uam_event_state(e, UAM_EVENT_CONN_STATE, 0, old, state);
  if (state == UAM_CONN_END) e->in.stage = UAM_IN_DONE;
}

bool uam_conn_move(uam_engine *e, int input) {
  uint8_t next = uam_conn_next(e->conn.state, input);
  if (next == 0) return false;
  enter(e, (uint8_t)(next - 1));
  return true;
}

void uam_conn_settle_all(uam_engine *e) {
  for (size_t i = 0; i < e->ids.cap_links; i++)
    if (e->ids.links[i] != NULL) uam_link_settle_all(e, e->ids.links[i], UAM_OUT_NOT_DELIVERED);
}

/* The connection ends here and now: there is no way left, or no right, to send a close. */
void uam_conn_fail(uam_engine *e, const char *condition, const char *text) {
  if (e->conn.state == UAM_CONN_END) return;
  uam_buf error = {0};
  uam_error_encode(e, &error, condition, text);
  if (e->conn.state != UAM_CONN_DISCARDING) uam_event_error(e, UAM_SCOPE_CONNECTION, 0, uam_buf_span(&error));
  uam_buf_free(&error, &e->mem);
  enter(e, UAM_CONN_END);
}

/* The peer broke a rule of the connection: close with an error and discard the rest (§2.4.3). What became of open deliveries
 * is told when it is known: transfers that wait in the output still leave in front of the close, or the transport goes. */
void uam_conn_error(uam_engine *e, const char *condition, const char *format, ...) {
  char text[160];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  if (e->conn.state == UAM_CONN_DISCARDING || e->conn.state == UAM_CONN_END) return;
  bool can_open = e->conn.want_open && (e->conn.state == UAM_CONN_HDR_EXCH || e->conn.state == UAM_CONN_OPEN_RCVD);
  if (can_open) uam_conn_flush_start(e);
  if (uam_conn_next(e->conn.state, UAM_S_CLOSE_ERR) == 0) {
    uam_conn_fail(e, condition, text);
    return;
  }
  uam_error_encode(e, &e->conn.close_error, condition, text);
  uam_event_error(e, UAM_SCOPE_CONNECTION, 0, uam_buf_span(&e->conn.close_error));
  e->conn.want_close = false;
  e->conn.close_sent = true;
  uam_p_close p = {.set = UAM_SET(close, error), .error = uam_buf_span(&e->conn.close_error)};
  uam_frame_put(e, 0, 0, UAM_COMPOSITE_close, &p);
  uam_conn_move(e, UAM_S_CLOSE_ERR);
}

/* ---- headers ---- */
static void put_header(uam_engine *e) {
  if (e->conn.header_sent) return;
  e->conn.header_sent = true;
  uam_frame_header(e, 0);
  uam_conn_move(e, UAM_S_HDR);
}

static void wrong_header(uam_engine *e, const uint8_t *h) {
  char text[160];
  bool amqp = memcmp(h, "AMQP", 4) == 0;
  if (e->role == UAM_SERVER && !e->conn.header_sent && !e->sasl.header_sent)
    uam_frame_header(e, e->sasl.stage == UAM_SASL_WANT ? 3 : 0); /* §2.2: say what we speak, then go */
  if (amqp && h[4] == 3) snprintf(text, sizeof text, "the peer asks for a SASL layer (protocol header AMQP 3)");
  else if (amqp)
    snprintf(text, sizeof text, "the peer speaks AMQP protocol %u version %u.%u.%u", h[4], h[5], h[6], h[7]);
  else
    snprintf(text, sizeof text, "no AMQP protocol header but bytes %02x%02x%02x%02x%02x%02x%02x%02x", h[0], h[1], h[2],
             h[3], h[4], h[5], h[6], h[7]);
  uam_conn_fail(e, "amqp:connection:framing-error", text);
}

void uam_conn_header(uam_engine *e, const uint8_t *h) {
  static const uint8_t version[3] = {1, 0, 0};
  bool known = memcmp(h, "AMQP", 4) == 0 && memcmp(h + 5, version, 3) == 0;
  if (known && h[4] == 3 && e->sasl.stage == UAM_SASL_WANT) {
    uam_sasl_header(e);
    return;
  }
  bool bare = e->sasl.stage == UAM_SASL_NONE || e->sasl.stage == UAM_SASL_DONE ||
              (e->role == UAM_SERVER && e->sasl.stage == UAM_SASL_WANT && !e->options.sasl_required);
  if (!known || h[4] != 0 || !bare) {
    wrong_header(e, h);
    return;
  }
  e->in.stage = UAM_IN_FRAMES;
  uam_conn_move(e, UAM_R_HDR);
  put_header(e);
}

/* ---- open and close ---- */
static bool may_open(const uam_engine *e) {
  if (!e->conn.want_open) return false;
  return uam_conn_next(e->conn.state, UAM_S_OPEN) != 0 && (e->options.pipeline || e->conn.state != UAM_CONN_HDR_SENT);
}

/* Time-outs that would have us do little but send heartbeats need not be borne, but be answered with a reason (§2.4.5). */
static void refuse_short_idle_timeout(uam_engine *e) {
  if (e->conn.state != UAM_CONN_OPENED || e->conn.remote_idle_timeout == 0 ||
      e->conn.remote_idle_timeout >= UAM_MIN_IDLE)
    return;
  uam_conn_error(e, "amqp:not-implemented", "open.idle-time-out %lu ms < %u ms, the shortest that is kept here",
                 (unsigned long)e->conn.remote_idle_timeout, UAM_MIN_IDLE);
}

static void put_open(uam_engine *e) {
  uam_p_open p;
  uam_fault fault = {0};
  e->conn.want_open = false;
  e->conn.open_sent = true;
  if (uam_composite_decode(UAM_COMPOSITE_open, uam_buf_span(&e->conn.open_args), &p, &fault) != 0) {
    e->fatal = UAM_ERR_BROKEN; /* it was checked when it was given */
    return;
  }
  p.set |= UAM_SET(open, max_frame_size);
  p.max_frame_size = e->conn.max_frame;
  uam_frame_put(e, 0, 0, UAM_COMPOSITE_open, &p);
  if (e->conn.last_received < e->now) e->conn.last_received = e->now; /* silence counts from here */
  uam_conn_move(e, UAM_S_OPEN);
  refuse_short_idle_timeout(e);
}

void uam_conn_flush_start(uam_engine *e) {
  if (e->conn.state == UAM_CONN_END) return;
  bool sasl_over = e->sasl.stage == UAM_SASL_NONE || e->sasl.stage == UAM_SASL_DONE;
  if (e->role == UAM_CLIENT && !e->conn.header_sent) {
    uam_sasl_start(e);
    if (sasl_over) put_header(e);
  }
  if (may_open(e)) put_open(e);
}

void uam_conn_on_open(uam_engine *e, const uam_p_open *p, uam_span list) {
  if (uam_conn_next(e->conn.state, UAM_R_OPEN) == 0) {
    uam_conn_error(e, "amqp:illegal-state", "open in connection state %u", (unsigned)e->conn.state);
    return;
  }
  if (UAM_HAS(*p, open, max_frame_size) && p->max_frame_size < UAM_MIN_MAX_FRAME) {
    uam_conn_error(e, "amqp:invalid-field", "open.max-frame-size %lu < %u", (unsigned long)p->max_frame_size,
                   UAM_MIN_MAX_FRAME);
    return;
  }
  e->conn.remote_max_frame = UAM_HAS(*p, open, max_frame_size) ? p->max_frame_size : UINT32_MAX;
  e->conn.remote_channel_max = UAM_HAS(*p, open, channel_max) ? p->channel_max : UINT16_MAX;
  e->conn.remote_idle_timeout = p->idle_time_out;
  uam_event_window(e, uam_event_push(e, UAM_EVENT_OPEN, 0), list);
  uam_conn_move(e, UAM_R_OPEN);
  refuse_short_idle_timeout(e);
}

void uam_conn_on_close(uam_engine *e, const uam_p_close *p) {
  uam_conn_settle_all(e);
  uam_event_window(e, uam_event_push(e, UAM_EVENT_CLOSE, 0), p->error);
  if (uam_conn_next(e->conn.state, UAM_R_CLOSE) == 0) {
    uam_conn_fail(e, "amqp:illegal-state", "close before open");
    return;
  }
  uam_conn_move(e, UAM_R_CLOSE);
  if (e->conn.state == UAM_CONN_CLOSE_RCVD) {
    e->conn.want_close = true;
    uam_buf_free(&e->conn.close_error, &e->mem);
  }
}

void uam_conn_flush_close(uam_engine *e) {
  if (!e->conn.want_close || e->conn.state == UAM_CONN_END) return;
  bool early = e->conn.state == UAM_CONN_START || e->conn.state == UAM_CONN_HDR_SENT ||
               e->conn.state == UAM_CONN_HDR_RCVD || (e->conn.state == UAM_CONN_HDR_EXCH && !e->conn.open_sent) ||
               (e->conn.state == UAM_CONN_OPEN_RCVD && !e->conn.want_open);
  if (early) { /* nobody has been told of a connection: there is nothing to close */
    uam_conn_settle_all(e);
    enter(e, UAM_CONN_END);
    return;
  }
  if (!e->conn.open_sent || uam_conn_next(e->conn.state, UAM_S_CLOSE) == 0) return; /* our open leaves in front of it */
  e->conn.want_close = false;
  e->conn.close_sent = true;
  uam_p_close p = {0};
  bool error = uam_buf_len(&e->conn.close_error) > 0;
  if (error) p = (uam_p_close){.set = UAM_SET(close, error), .error = uam_buf_span(&e->conn.close_error)};
  uam_frame_put_last(e, 0, UAM_COMPOSITE_close, &p, &p.error);
  bool discard = error && uam_conn_next(e->conn.state, UAM_S_CLOSE_ERR) != 0;
  uam_conn_move(e, discard ? UAM_S_CLOSE_ERR : UAM_S_CLOSE);
}

/* ---- time (§2.4.5) ---- */
static bool alive(const uam_engine *e) {
  return e->conn.open_sent && !e->conn.close_sent && e->conn.state != UAM_CONN_END;
}

static uint64_t heartbeat_due(const uam_engine *e) {
  if (e->conn.remote_idle_timeout == 0 || !alive(e) || uam_buf_len(&e->out.buf) > 0) return UAM_FOREVER;
  uint64_t every = (uint64_t)e->conn.remote_idle_timeout * e->options.heartbeat_permille / 1000;
  return e->conn.last_sent + (every > UAM_MIN_BEAT ? every : UAM_MIN_BEAT);
}

static uint64_t silence_due(const uam_engine *e) {
  return e->conn.idle_timeout == 0 || !alive(e) ? UAM_FOREVER : e->conn.last_received + e->conn.idle_timeout;
}

uint64_t uam_deadline(const uam_engine *e) {
  uint64_t beat = heartbeat_due(e), silence = silence_due(e);
  return beat < silence ? beat : silence;
}

void uam_conn_heartbeat(uam_engine *e) {
  if (e->now >= heartbeat_due(e)) uam_frame_empty(e);
}

void uam_conn_check_idle(uam_engine *e) {
  if (e->now < silence_due(e)) return;
  uam_conn_error(e, "amqp:internal-error", "nothing was received for %lu ms, the idle time-out",
                 (unsigned long)e->conn.idle_timeout);
}

/* ---- public ---- */
int uam_open(uam_engine *e, const uint8_t *open, size_t n) {
  if (e->fatal) return e->fatal;
  if (e->conn.want_open || e->conn.open_sent || e->conn.state == UAM_CONN_END)
    return uam_refuse(e, UAM_ERR_STATE, "this connection was opened before");
  uam_p_open p;
  uam_fault fault = {0};
  if (uam_composite_decode(UAM_COMPOSITE_open, (uam_span){open, n}, &p, &fault) != 0)
    return uam_refuse(e, UAM_ERR_ARG, "%s", fault.text);
  uint32_t max = UAM_HAS(p, open, max_frame_size) ? p.max_frame_size : UAM_MAX_FRAME;
  if (max < UAM_MIN_MAX_FRAME)
    return uam_refuse(e, UAM_ERR_ARG, "max-frame-size %lu < %u", (unsigned long)max, UAM_MIN_MAX_FRAME);
  if (!uam_keep(e, &e->conn.open_args, open, n)) return e->fatal;
  e->conn.max_frame = max < UAM_MAX_FRAME ? max : UAM_MAX_FRAME;
  e->conn.channel_max = UAM_HAS(p, open, channel_max) ? p.channel_max : UINT16_MAX;
  e->conn.idle_timeout = p.idle_time_out;
  e->conn.want_open = true;
  return UAM_OK;
}

int uam_close(uam_engine *e, const uint8_t *error, size_t n) {
  if (e->fatal) return e->fatal;
  if (e->conn.close_sent || e->conn.state == UAM_CONN_END)
    return uam_refuse(e, UAM_ERR_STATE, "the connection is closed");
  if (n > UAM_MAX_STATE) return uam_refuse(e, UAM_ERR_ARG, "error of %lu bytes", (unsigned long)n);
  if (!uam_keep(e, &e->conn.close_error, error, n)) return e->fatal;
  e->conn.want_close = true;
  if (e->conn.state == UAM_CONN_CLOSE_RCVD && !e->conn.open_sent && !e->conn.want_open)
    enter(e, UAM_CONN_END); /* never opened */
  return UAM_OK;
}

int uam_get_conn(const uam_engine *e, uam_conn_info *out) {
  *out = (uam_conn_info){.state = e->conn.state,
                         .remote_max_frame_size = e->conn.remote_max_frame,
                         .remote_idle_timeout = e->conn.remote_idle_timeout,
                         .remote_channel_max = e->conn.remote_channel_max,
                         .max_frame_size = e->conn.max_frame,
                         .transport_done = e->conn.state == UAM_CONN_END};
  return UAM_OK;
}
