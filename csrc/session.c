/* session.c - sessions (§2.5): begin and end, channels, transfer windows, and the flow frame, which is the session's even
 * where it speaks of a link. Called by engine.c with frames and in the phases of output. */
#include <stdarg.h>
#include <stdio.h>

#include "uam_int.h"

uam_session *uam_session_by_id(const uam_engine *e, uint32_t id) {
  size_t slot = id & 0xffff;
  if (id == 0 || slot >= e->ids.cap_sessions) return NULL;
  uam_session *s = e->ids.sessions[slot];
  return s != NULL && s->id == id ? s : NULL;
}

static void move(uam_engine *e, uam_session *s, int input) {
  uint8_t next = uam_session_next(s->state, input);
  if (next == 0) return;
  uint8_t old = s->state;
  s->state = (uint8_t)(next - 1);
  uam_event_state(e, UAM_EVENT_SESSION_STATE, s->id, old, s->state);
}

void uam_session_dirty(uam_engine *e, uam_session *s) {
  if (s->dirty) return;
  s->dirty = true;
  s->next_dirty = e->dirty.sessions;
  e->dirty.sessions = s;
}

static bool room_for_slot(uam_engine *e, size_t slot) {
  if (slot < e->ids.cap_sessions) return true;
  size_t cap = e->ids.cap_sessions ? e->ids.cap_sessions * 2 : 4;
  uam_session **grown = uam_mem_realloc(&e->mem, e->ids.sessions, cap * sizeof *grown);
  if (grown == NULL) return false;
  memset(grown + e->ids.cap_sessions, 0, (cap - e->ids.cap_sessions) * sizeof *grown);
  e->ids.sessions = grown;
  e->ids.cap_sessions = cap;
  return true;
}

uam_session *uam_session_new(uam_engine *e) {
  size_t slot = e->ids.free_session;
  while (slot < e->ids.cap_sessions && e->ids.sessions[slot] != NULL) slot++;
  uam_session *s = room_for_slot(e, slot) ? uam_mem_alloc(&e->mem, sizeof *s) : NULL;
  if (s == NULL) {
    uam_oom(e);
    return NULL;
  }
  s->id = uam_next_id(e, slot);
  s->handle_max = UAM_MAX_HANDLE; /* who pipelines attaches before the other side's begin says more */
  s->remote_handle_max = UINT32_MAX;
  e->ids.sessions[slot] = s;
  e->ids.free_session = slot + 1;
  e->ids.n_sessions++;
  return s;
}

/* The peer's channel is free, and for a while frames that belong to what was there are forgiven. */
static void leave_channel(uam_engine *e, uam_session *s) {
  if (!s->mapped_remote) return;
  uam_map_remove(&e->ids.by_remote_channel, s->remote_channel);
  s->mapped_remote = false;
  for (size_t i = 0; i < UAM_LATE_CHANNELS; i++)
    if (e->late.channels[i].channel == s->remote_channel) e->late.channels[i].frames = 0;
  e->late.channels[e->late.next] =
      (uam_late){.until = e->now + UAM_LATE_TIME, .frames = UAM_LATE_FRAMES, .channel = s->remote_channel};
  e->late.next = (e->late.next + 1) % UAM_LATE_CHANNELS;
}

/* A frame on a channel without a session. Both ends are out, so nothing may come there; but who shares the connection with the session
 * that has ended has no part in it (§2.5.5 says nothing of such a frame). */
bool uam_session_late(uam_engine *e, uint16_t channel, uint32_t code) {
  for (size_t i = 0; i < UAM_LATE_CHANNELS; i++) {
    uam_late *late = &e->late.channels[i];
    if (late->frames == 0 || late->channel != channel || e->now > late->until) continue;
    if (late->frames == UAM_LATE_FRAMES) {
      uam_event *ev = uam_event_push(e, UAM_EVENT_LATE, 0);
      ev->first = channel;
      ev->code = code;
    }
    late->frames--;
    return true;
  }
  return false;
}

/* Takes its links with it. It must not stand in the list of dirty ones: engine.c sees to that. */
void uam_session_free(uam_engine *e, uam_session *s) {
  for (size_t i = 0; i < s->cap_links; i++)
    if (s->links[i] != NULL) uam_link_free(e, s->links[i]);
  leave_channel(e, s);
  size_t slot = s->id & 0xffff;
  e->ids.sessions[slot] = NULL;
  if (slot < e->ids.free_session) e->ids.free_session = slot;
  if (s->has_channel) e->ids.channels[s->channel / 64] &= ~((uint64_t)1 << s->channel % 64);
  e->ids.n_sessions--;
  uam_buf_free(&s->args, &e->mem);
  uam_buf_free(&s->error, &e->mem);
  uam_buf_free(&s->disposition.state, &e->mem);
  uam_map_free(&s->by_remote_handle, &e->mem);
  uam_mem_free(&e->mem, s->links);
  uam_mem_free(&e->mem, s);
}

static void put_end(uam_engine *e, uam_session *s) {
  uam_delivery_flush(e, s);
  uam_p_end p = {0};
  bool error = uam_buf_len(&s->error) > 0;
  if (error) p = (uam_p_end){.set = UAM_SET(end, error), .error = uam_buf_span(&s->error)};
  s->want.end = false;
  uam_frame_put_last(e, s->channel, UAM_COMPOSITE_end, &p, &p.error);
  move(e, s, error && s->state == UAM_SESSION_MAPPED ? UAM_S_END_ERR : UAM_S_END);
}

static void settle_links(uam_engine *e, uam_session *s, uint32_t waiting) {
  for (size_t i = 0; i < s->cap_links; i++)
    if (s->links[i] != NULL) uam_link_settle_all(e, s->links[i], waiting);
}

/* The peer broke a rule of the session: end it with an error and discard what still comes. */
void uam_session_error(uam_engine *e, uam_session *s, const char *condition, const char *format, ...) {
  char text[160];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  if (s->state == UAM_SESSION_END_SENT) return; /* it crossed our end, and may speak of what came after that: void */
  if (s->state != UAM_SESSION_MAPPED) {
    uam_conn_error(e, condition, "%s", text);
    return;
  }
  uam_error_encode(e, &s->error, condition, text);
  uam_event_error(e, UAM_SCOPE_SESSION, s->id, uam_buf_span(&s->error));
  settle_links(e, s, UAM_OUT_UNKNOWN); /* what waits leaves in front of our end */
  put_end(e, s);
  uam_session_dirty(e, s);
}

/* ---- windows (§2.5.6) ---- */
void uam_session_put_flow(uam_engine *e, uam_session *s, uam_link *l, bool echo) {
  s->want.flow = false;
  s->in.window = s->in.window_max;
  uam_p_flow p = {0};
  p.set = UAM_SET(flow, incoming_window) | UAM_SET(flow, next_outgoing_id) | UAM_SET(flow, outgoing_window);
  if (s->mapped_remote) {
    p.set |= UAM_SET(flow, next_incoming_id);
    p.next_incoming_id = s->in.next_id;
  }
  p.incoming_window = s->in.window;
  p.next_outgoing_id = s->out.next_id;
  p.outgoing_window = s->out.window;
  if (l != NULL) {
    p.set |= UAM_SET(flow, handle) | UAM_SET(flow, delivery_count) | UAM_SET(flow, link_credit);
    p.handle = l->handle;
    p.delivery_count = l->delivery_count;
    p.link_credit = l->credit;
    if (l->sender ? l->drain_told : l->want.drain) { /* a sender repeats what the receiver said last (§2.6.7) */
      p.set |= UAM_SET(flow, drain);
      p.drain = true;
    }
  }
  if (echo) {
    p.set |= UAM_SET(flow, echo);
    p.echo = true;
  }
  uam_frame_put(e, 0, s->channel, UAM_COMPOSITE_flow, &p);
}

/* There is room for transfers: half-sent messages go on; links that were held up by a shut window take messages again. */
static void window_open(uam_engine *e, uam_session *s, bool was_shut, const uam_link *told) {
  for (size_t i = 0; i < s->cap_links; i++) {
    uam_link *l = s->links[i];
    if (l == NULL) continue;
    if (l->out.partial) uam_link_dirty(e, l);
    else if (was_shut && l != told && l->sender && l->state == UAM_LINK_ATTACHED && l->credit > 0)
      uam_link_event_credit(e, l, 0);
  }
}

void uam_session_on_flow(uam_engine *e, uam_session *s, const uam_p_flow *p) {
  uint32_t base = UAM_HAS(*p, flow, next_incoming_id) ? p->next_incoming_id : s->out.initial_id;
  int32_t room = seq_diff(base + p->incoming_window, s->out.next_id);
  bool was_shut = s->out.remote_window == 0;
  s->in.next_id = p->next_outgoing_id; /* §2.5.6: the sender's word counts, not what we counted */
  s->out.remote_window = p->incoming_window > INT32_MAX ? p->incoming_window : room > 0 ? (uint32_t)room : 0;
  const uam_link *told = NULL;
  if (!UAM_HAS(*p, flow, handle)) {
    if (p->echo) {
      s->want.flow = true;
      uam_session_dirty(e, s);
    }
  } else {
    uam_link *l = uam_map_get(&s->by_remote_handle, p->handle);
    if (l == NULL) {
      uam_session_error(e, s, "amqp:session:unattached-handle", "flow.handle %lu is not attached",
                        (unsigned long)p->handle);
      return;
    }
    uam_link_on_flow(e, l, p);
    told = l;
  }
  if (s->out.remote_window > 0) window_open(e, s, was_shut, told);
}

/* ---- begin and end ---- */
static void take_begin(uam_session *s, const uam_p_begin *p, uint16_t channel) {
  s->remote_channel = channel;
  s->mapped_remote = true;
  s->in.next_id = p->next_outgoing_id;
  s->out.remote_window = p->incoming_window;
  s->remote_handle_max = UAM_HAS(*p, begin, handle_max) ? p->handle_max : UINT32_MAX;
}

static uam_session *by_channel(const uam_engine *e, uint16_t channel) {
  for (size_t i = 0; i < e->ids.cap_sessions; i++)
    if (e->ids.sessions[i] != NULL && e->ids.sessions[i]->has_channel && e->ids.sessions[i]->channel == channel)
      return e->ids.sessions[i];
  return NULL;
}

static uam_session *begun_by_peer(uam_engine *e, uint16_t channel) {
  if (channel > e->conn.channel_max) {
    uam_conn_error(e, "amqp:connection:framing-error", "begin on channel %u > channel-max %u", (unsigned)channel,
                   (unsigned)e->conn.channel_max);
    return NULL;
  }
  if (e->ids.n_sessions >= UAM_MAX_SESSIONS) {
    uam_conn_error(e, "amqp:resource-limit-exceeded", "more than %u sessions", UAM_MAX_SESSIONS);
    return NULL;
  }
  return uam_session_new(e);
}

void uam_session_on_begin(uam_engine *e, uint16_t channel, const uam_p_begin *p, uam_span list) {
  if (uam_map_get(&e->ids.by_remote_channel, channel) != NULL) {
    uam_conn_error(e, "amqp:illegal-state", "begin on channel %u, which is in use", (unsigned)channel);
    return;
  }
  bool reply = UAM_HAS(*p, begin, remote_channel);
  uam_session *s = reply ? by_channel(e, p->remote_channel) : begun_by_peer(e, channel);
  if (s == NULL || (reply && s->state != UAM_SESSION_BEGIN_SENT)) {
    if (reply)
      uam_conn_error(e, "amqp:illegal-state", "begin.remote-channel %u was not begun", (unsigned)p->remote_channel);
    return;
  }
  if (!uam_map_put(&e->ids.by_remote_channel, &e->mem, channel, s)) {
    uam_oom(e);
    return;
  }
  take_begin(s, p, channel);
  uam_event *ev = uam_event_push(e, UAM_EVENT_BEGIN, s->id);
  uam_event_window(e, ev, list);
  if (ev != NULL && reply) ev->flags = UAM_FLAG_REPLY;
  move(e, s, UAM_R_BEGIN);
  uam_session_dirty(e, s);
  for (size_t i = 0; i < s->cap_links; i++)
    if (s->links[i] != NULL) uam_link_dirty(e, s->links[i]);
}

void uam_session_on_end(uam_engine *e, uam_session *s, const uam_p_end *p) {
  if (s->state == UAM_SESSION_END_RCVD) return; /* once more before our answer left: as late as any other frame */
  settle_links(e, s, UAM_OUT_NOT_DELIVERED);
  uam_event_window(e, uam_event_push(e, UAM_EVENT_END, s->id), p->error);
  move(e, s, UAM_R_END);
  if (s->state == UAM_SESSION_UNMAPPED)
    leave_channel(e, s); /* both ends are out: the peer may use the channel again at once */
  if (s->state == UAM_SESSION_END_RCVD) {
    uam_buf_free(&s->error, &e->mem);
    s->want.end = true;
  }
  uam_session_dirty(e, s);
}

/* A session that is on its way out and will give its channel back, if the peer allows that one. */
static bool channel_returns(const uam_engine *e, uint32_t max) {
  for (size_t i = 0; i < e->ids.cap_sessions; i++) {
    const uam_session *s = e->ids.sessions[i];
    if (s == NULL || !s->has_channel || s->channel > max) continue;
    bool over = s->state == UAM_SESSION_UNMAPPED && s->begin_sent; /* it goes in this very flush */
    if (over || s->want.end || s->state == UAM_SESSION_END_SENT || s->state == UAM_SESSION_DISCARDING) return true;
  }
  return false;
}

/* Lowest channel that is free on our side and allowed on theirs. There are as many as there can be sessions. While there is none
 * but one is coming back, the begin waits: who serves one client after the other on channel-max 0 has not failed. */
static bool choose_channel(uam_engine *e, uam_session *s) {
  if (s->has_channel) return true;
  uint32_t max = e->conn.remote_channel_max < e->conn.channel_max ? e->conn.remote_channel_max : e->conn.channel_max,
           c = 0;
  while (c < UAM_MAX_SESSIONS && e->ids.channels[c / 64] == UINT64_MAX) c += 64;
  while (c < UAM_MAX_SESSIONS && (e->ids.channels[c / 64] >> c % 64 & 1)) c++;
  if (c <= max && c < UAM_MAX_SESSIONS) {
    e->ids.channels[c / 64] |= (uint64_t)1 << c % 64;
    s->channel = (uint16_t)c;
    s->has_channel = true;
    return true;
  }
  if (channel_returns(e, max)) return false;
  s->want.begin = false;
  if (s->mapped_remote) { /* the peer waits for an answer on a channel that it does not allow */
    uam_conn_error(e, "amqp:resource-limit-exceeded",
                   "the answer to the begin on channel %u needs one above channel-max %lu", (unsigned)s->remote_channel,
                   (unsigned long)max);
    return false;
  }
  uam_buf error = {0};
  char text[80];
  snprintf(text, sizeof text, "no channel is free up to channel-max %lu", (unsigned long)max);
  uam_error_encode(e, &error, "amqp:resource-limit-exceeded", text);
  uam_event_error(e, UAM_SCOPE_SESSION, s->id, uam_buf_span(&error));
  uam_buf_free(&error, &e->mem);
  return false;
}

bool uam_session_flush_begin(uam_engine *e, uam_session *s) {
  bool opened = e->conn.state == UAM_CONN_OPENED ||
                (e->options.pipeline && (e->conn.state == UAM_CONN_OPEN_SENT || e->conn.state == UAM_CONN_OPEN_PIPE));
  bool unborn = s->want.end && !s->mapped_remote;
  if (!s->want.begin || unborn || !opened || !choose_channel(e, s)) return false;
  uam_p_begin p;
  uam_fault fault = {0};
  if (uam_composite_decode(UAM_COMPOSITE_begin, uam_buf_span(&s->args), &p, &fault) != 0) {
    e->fatal = UAM_ERR_BROKEN;
    return false;
  }
  if (s->mapped_remote) {
    p.set |= UAM_SET(begin, remote_channel);
    p.remote_channel = s->remote_channel;
  }
  s->want.begin = false;
  s->begin_sent = true;
  uam_frame_put(e, 0, s->channel, UAM_COMPOSITE_begin, &p);
  move(e, s, UAM_S_BEGIN);
  return true;
}

bool uam_session_flush_end(uam_engine *e, uam_session *s) {
  bool up = s->state == UAM_SESSION_MAPPED;
  if (up && s->want.flow && e->conn.state == UAM_CONN_OPENED) uam_session_put_flow(e, s, NULL, false);
  if (s->want.end && !s->want.begin && (up || (s->state == UAM_SESSION_END_RCVD && s->begin_sent))) put_end(e, s);
  if (s->want.end && !s->mapped_remote && !s->begin_sent) { /* never begun: nothing to end */
    s->want.begin = s->want.end = false;
    return true;
  }
  uam_delivery_flush(e, s);
  return s->state == UAM_SESSION_UNMAPPED && !s->want.begin && s->begin_sent;
}

/* ---- public ---- */
static int check_begin(uam_engine *e, const uint8_t *begin, size_t n, uam_p_begin *p) {
  uam_fault fault = {0};
  if (uam_composite_decode(UAM_COMPOSITE_begin, (uam_span){begin, n}, p, &fault) != 0)
    return uam_refuse(e, UAM_ERR_ARG, "%s", fault.text);
  if (p->incoming_window == 0) return uam_refuse(e, UAM_ERR_ARG, "begin.incoming-window 0");
  return UAM_OK;
}

int64_t uam_begin(uam_engine *e, uint32_t session, const uint8_t *begin, size_t n) {
  if (e->fatal) return e->fatal;
  uam_p_begin p;
  int rc = check_begin(e, begin, n, &p);
  if (rc != UAM_OK) return rc;
  if (e->conn.state == UAM_CONN_END || e->conn.want_close || e->conn.close_sent)
    return uam_refuse(e, UAM_ERR_STATE, "the connection is closed");
  uam_session *s = NULL;
  if (session != 0) {
    s = uam_session_by_id(e, session);
    if (s == NULL || s->want.begin || s->begin_sent) return uam_refuse(e, UAM_ERR_STATE, "no begin to answer");
  } else if (e->ids.n_sessions >= UAM_MAX_SESSIONS) {
    return uam_refuse(e, UAM_ERR_LIMIT, "more than %u sessions", UAM_MAX_SESSIONS);
  } else {
    s = uam_session_new(e);
  }
  if (s == NULL || !uam_keep(e, &s->args, begin, n)) return e->fatal;
  s->in.window = s->in.window_max = p.incoming_window;
  s->out.next_id = s->out.initial_id = s->out.next_delivery_id = p.next_outgoing_id;
  s->out.window = p.outgoing_window;
  s->handle_max = UAM_HAS(p, begin, handle_max) ? p.handle_max : UINT32_MAX;
  s->want.begin = true;
  uam_session_dirty(e, s);
  return s->id;
}

int uam_end(uam_engine *e, uint32_t session, const uint8_t *error, size_t n) {
  if (e->fatal) return e->fatal;
  uam_session *s = uam_session_by_id(e, session);
  bool over = s == NULL || s->want.end || s->state == UAM_SESSION_END_SENT || s->state == UAM_SESSION_DISCARDING;
  if (over) return uam_refuse(e, UAM_ERR_STATE, "no such session");
  if (n > UAM_MAX_STATE) return uam_refuse(e, UAM_ERR_ARG, "error of %lu bytes", (unsigned long)n);
  if (!uam_keep(e, &s->error, error, n)) return e->fatal;
  s->want.end = true;
  uam_session_dirty(e, s);
  return UAM_OK;
}
