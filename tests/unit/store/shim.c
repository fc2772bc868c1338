/* What the kernel answers on file systems that lack something; MISSING names it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int missing(const char *what) {
  const char *found = getenv("MISSING");
  return found && strstr(found, what) != NULL;
}

int flock(int file, int how) {
  if (missing("locks")) { errno = ENOLCK; return -1; }
  return ((int (*)(int, int))dlsym(RTLD_NEXT, "flock"))(file, how);
}

int linkat(int a, const char *from, int b, const char *to, int flags) {
  if (missing("links")) { errno = EPERM; return -1; }
  int done = ((int (*)(int, const char *, int, const char *, int))dlsym(RTLD_NEXT, "linkat"))(a, from, b, to, flags);
  if (done == 0 && missing("answers")) { errno = EEXIST; return -1; }  /* of NFS: lost, and the request repeated */
  return done;
}

int link(const char *from, const char *to) { return linkat(-100, from, -100, to, 0); }

int fsync(int file) {
  struct stat found;
  if (missing("flush") && fstat(file, &found) == 0 && S_ISDIR(found.st_mode)) { errno = EINVAL; return -1; }
  return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(file);
}

void *mmap64(void *at, size_t size, int protection, int flags, int file, off64_t offset) {
  if (file >= 0 && (flags & MAP_SHARED) && missing("maps")) { errno = ENODEV; return MAP_FAILED; }
  return ((void *(*)(void *, size_t, int, int, int, off64_t))dlsym(RTLD_NEXT, "mmap64"))(at, size, protection, flags, file, offset);
}

void *mmap(void *at, size_t size, int protection, int flags, int file, off_t offset) {
  return mmap64(at, size, protection, flags, file, offset);
}
