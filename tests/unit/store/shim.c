/* Simulates file systems without a feature: the environment variable MISSING names the features. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int missing(const char *feature) {
  const char *features = getenv("MISSING");
  return features && strstr(features, feature) != NULL;
}

int flock(int file, int operation) {
  if (missing("locks")) { errno = ENOLCK; return -1; }
  return ((int (*)(int, int))dlsym(RTLD_NEXT, "flock"))(file, operation);
}

int linkat(int a, const char *from, int b, const char *to, int flags) {
  if (missing("links")) { errno = EPERM; return -1; }
  int result = ((int (*)(int, const char *, int, const char *, int))dlsym(RTLD_NEXT, "linkat"))(a, from, b, to, flags);
  if (result == 0 && missing("replies")) { errno = EEXIST; return -1; }  /* NFS lost the reply and repeated the request */
  return result;
}

int link(const char *from, const char *to) { return linkat(-100, from, -100, to, 0); }

int fsync(int file) {
  struct stat status;
  if (missing("flush") && fstat(file, &status) == 0 && S_ISDIR(status.st_mode)) { errno = EINVAL; return -1; }
  return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(file);
}

void *mmap64(void *address, size_t size, int protection, int flags, int file, off64_t offset) {
  if (file >= 0 && (flags & MAP_SHARED) && missing("maps")) { errno = ENODEV; return MAP_FAILED; }
  return ((void *(*)(void *, size_t, int, int, int, off64_t))dlsym(RTLD_NEXT, "mmap64"))(address, size, protection, flags, file, offset);
}

void *mmap(void *address, size_t size, int protection, int flags, int file, off_t offset) {
  return mmap64(address, size, protection, flags, file, offset);
}
